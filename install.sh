#!/bin/sh
# Installs the programs of hpc-queue for you alone: no root, nothing outside of PREFIX (~/.local by default).
#
#   sh install.sh                    the newest release
#   sh install.sh v0.1.0             this one
#   PREFIX=/project/me sh install.sh
#
# It fetches the archive for this machine and the list of checksums from the release, compares the one with the other,
# and copies programs, man pages and completions below PREFIX. Programs that run are replaced without being disturbed:
# they go on as they were until they are started again (`hpc-consumer service restart`).
#
# PREFIX               where to: programs go into PREFIX/bin                      [~/.local]
# HPC_QUEUE_RELEASES   where releases are: https://github.com/OWNER/REPOSITORY/releases
set -eu

# A release has its own address here.
releases=${HPC_QUEUE_RELEASES:-}
version=${1:-latest}

fail() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

fetch() { # URL FILE
  if command -v curl >/dev/null 2>&1; then
    curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"
  elif command -v wget >/dev/null 2>&1; then
    wget --quiet --tries=3 --output-document="$2" "$1"
  else
    fail 'there is neither curl nor wget; install one of them, or fetch and unpack the archive by hand'
  fi || fail "$1 cannot be fetched; is the version right, and is there a way out (HTTPS_PROXY)?"
}

sum() { # FILE
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum "$1"
  elif command -v shasum >/dev/null 2>&1; then
    shasum -a 256 "$1"
  else
    fail 'there is neither sha256sum nor shasum, so that the archive cannot be verified; nothing was installed'
  fi | cut -d ' ' -f 1
}

test -n "$releases" || fail 'set HPC_QUEUE_RELEASES to where the releases are: https://github.com/OWNER/REPOSITORY/releases'
test -n "${PREFIX:-}" || test -n "${HOME:-}" || fail 'HOME is not set; set PREFIX to where the programs are to go'
prefix=${PREFIX:-$HOME/.local}

case "$(uname -s) $(uname -m)" in
  'Linux x86_64') target=x86_64-unknown-linux-musl ;;
  'Linux aarch64') target=aarch64-unknown-linux-musl ;;
  'Darwin arm64') target=aarch64-apple-darwin ;;
  *) fail "there is no archive for $(uname -s) on $(uname -m); build it from source (README.md)" ;;
esac
case $version in
  latest) address=$releases/latest/download ;;
  *) address=$releases/download/$version ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

fetch "$address/SHA256SUMS" "$work/SHA256SUMS"
# One line for each file: its sum, two spaces, its name.
line=$(grep -E "  hpc-queue-[0-9A-Za-z.-]+-$target\.tar\.gz\$" "$work/SHA256SUMS" || true)
test "$(printf '%s\n' "$line" | grep -c .)" = 1 || fail "$address/SHA256SUMS does not name one archive for $target"
expected=${line%% *}
archive=${line##* }

fetch "$address/$archive" "$work/$archive"
found=$(sum "$work/$archive")
test "$found" = "$expected" ||
  fail "$archive is not what the release says: its SHA-256 is $found, not $expected; nothing was installed"

# It holds one folder of its own name.
tar -xzf "$work/$archive" -C "$work"
unpacked=$work/${archive%.tar.gz}
test -d "$unpacked/bin" || fail "$archive holds no programs; nothing was installed"

# To the side first, then in its place: at no moment is there half a program.
place() { # FILE FOLDER MODE
  mkdir -p "$2"
  new=$2/.${1##*/}.new
  cp "$1" "$new"
  chmod "$3" "$new"
  mv -f "$new" "$2/${1##*/}"
}
for file in "$unpacked"/bin/*; do place "$file" "$prefix/bin" 755; done
for file in "$unpacked"/share/man/man1/*; do place "$file" "$prefix/share/man/man1" 644; done
for file in "$unpacked"/share/bash-completion/completions/*; do
  place "$file" "$prefix/share/bash-completion/completions" 644
done
for file in "$unpacked"/share/zsh/site-functions/*; do place "$file" "$prefix/share/zsh/site-functions" 644; done
for file in "$unpacked"/share/fish/vendor_completions.d/*; do
  place "$file" "$prefix/share/fish/vendor_completions.d" 644
done

printf 'installed in %s:' "$prefix/bin"
for file in "$unpacked"/bin/*; do printf ' %s' "${file##*/}"; done
printf '\n'
case ":$PATH:" in
  *":$prefix/bin:"*) ;;
  *) printf 'put it on your PATH: export PATH="%s:$PATH"\n' "$prefix/bin" ;;
esac
