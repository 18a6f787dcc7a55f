//! A virtual machine: another kernel, control groups of version 2, a systemd that has started the machine and one of an
//! ordinary user, and root. Its disk is a Debian that nobody has installed, below a layer in memory; the programs under
//! test are seen at the places that they have here.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::getuid;
use tempfile::TempDir;

use crate::{Process, command, parts};

/// Until it has ended by itself. It has no help of hardware, and does all ten times as slowly as this machine.
const BOUND: Duration = Duration::from_secs(400);

/// The first process of the machine: makes the root, and gives it to systemd.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /dev /base /layer /new
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /modules/*.ko; do $b insmod $module || echo "$module is not taken"; done
folder=trans=virtio,version=9p2000.L,msize=512000
$b mount -t tmpfs layer /layer
$b mkdir /layer/upper /layer/work
$b mount -t 9p -o $folder,ro,cache=loose base /base
$b mount -t overlay -o lowerdir=/base,upperdir=/layer/upper,workdir=/layer/work root /new
number=0
for place in $($b sed 's/.* folders=\([^ ]*\).*/\1/' /proc/cmdline | $b tr : ' '); do
  $b mkdir -p /new$place
  $b mount -t 9p -o $folder,ro,cache=loose folder$number /new$place
  number=$((number + 1))
done
$b mkdir /new/shared
$b mount -t 9p -o $folder shared /new/shared
$b cp -r /new/shared/etc/. /new/etc/
$b umount /proc
exec $b switch_root /new /usr/lib/systemd/systemd
"#;

/// What systemd is started for. When it has ended, so has the machine.
const TEST: &str = "[Unit]
After=basic.target
FailureAction=poweroff-immediate
SuccessAction=poweroff-immediate
[Service]
Type=oneshot
ExecStart=/bin/bash /shared/root.sh
StandardOutput=append:/shared/output
StandardError=append:/shared/log
";

/// A manager of a user without PAM and without logind, both of which ask for what scripts of packages set up.
const USER_MANAGER: &str = "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n";
const USER_DIRECTORY: &str = "[Service]
ExecStart=
ExecStart=/usr/bin/install -d -m 700 -o %i -g %i /run/user/%i
ExecStop=
";

/// Two scripts for such a machine, and what else it has.
#[derive(Debug)]
pub struct VirtualMachine<'a> {
    /// Run by root first.
    pub as_root: &'a str,
    /// Run by an ordinary user then, in the home directory, with a systemd of that user.
    pub as_user: &'a str,
    /// Directories of this machine that are to be seen in there.
    pub directories: &'a [PathBuf],
}

impl VirtualMachine<'_> {
    /// Starts it and waits until it has ended; returns what the scripts have written to their standard output.
    pub fn run(&self) -> String {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let shared = self.shared(folder.path());
        let initial = initial_files(&folder);
        let mut qemu = self.qemu(&shared, &initial);
        qemu.env("TMPDIR", folder.path());
        let mut process = Process::start("qemu", &mut qemu, folder.path());
        let ended = process.wait_within(BOUND);
        let read = |name: &str| fs::read_to_string(shared.join(name)).unwrap_or_default();
        let output = read("output");
        let is_whole = output.ends_with("\nwhole\n");
        assert!(
            ended.is_some_and(|status| status.success()) && is_whole,
            "the machine: {ended:?}\noutput: {output}\nlog: {}\nconsole: {}",
            read("log"),
            String::from_utf8_lossy(&fs::read(folder.path().join("console")).unwrap_or_default()),
        );
        // Shown if the test fails.
        println!("{output}\n{}", read("log"));
        output
    }

    /// What it shares with this machine: settings of its system, the scripts, and what they have written.
    fn shared(&self, folder: &Path) -> PathBuf {
        let shared = folder.join("shared");
        let units = shared.join("etc/systemd/system");
        for name in ["user@.service.d", "user-runtime-dir@.service.d"] {
            fs::create_dir_all(units.join(name)).expect("the directory of a test can be written to");
        }
        let user = user();
        let as_root = format!(
            "set -e
trap 'journalctl --boot --no-pager --lines 30 >&2; tail -n 100 /home/researcher/*.log >&2' EXIT
install -d -m 700 -o {user} -g {user} /home/researcher
{}
systemctl start user@{user}.service
setpriv --reuid={user} --regid={user} --clear-groups env -i HOME=/home/researcher USER=researcher PATH=/usr/bin:/bin \
  XDG_RUNTIME_DIR=/run/user/{user} bash -e -c 'cd; . /shared/user.sh'
echo; echo whole
",
            self.as_root
        );
        let passwd = format!("root:x:0:0::/root:/bin/bash\nresearcher:x:{user}:{user}::/home/researcher:/bin/bash\n");
        for (name, text) in [
            ("etc/passwd", passwd.as_str()),
            ("etc/group", &format!("root:x:0:\ntty:x:5:\ndisk:x:6:\nresearcher:x:{user}:\n")),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("etc/systemd/system/test.service", TEST),
            ("etc/systemd/system/user@.service.d/alone.conf", USER_MANAGER),
            ("etc/systemd/system/user-runtime-dir@.service.d/alone.conf", USER_DIRECTORY),
            ("root.sh", &as_root),
            ("user.sh", self.as_user),
        ] {
            fs::write(shared.join(name), text).expect("the directory of a test can be written to");
        }
        shared
    }

    fn qemu(&self, shared: &Path, initial: &Path) -> Command {
        let vm = parts::vm();
        let mut qemu = command(&vm.join("qemu"), shared.parent().expect("it was made within one"));
        for data in ["qemu", "seabios"] {
            qemu.arg("-L").arg(vm.join("root/usr/share").join(data));
        }
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]);
        qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "file:console"]);
        qemu.arg("-kernel").arg(vm.join("linux")).arg("-initrd").arg(initial);
        let places: Vec<String> = self.directories.iter().map(|path| path.display().to_string()).collect();
        qemu.arg("-append").arg(format!(
            "console=ttyS0 panic=-1 quiet systemd.unit=test.service systemd.show_status=no \
             systemd.mask=systemd-udevd.service systemd.mask=systemd-udev-trigger.service \
             systemd.mask=ldconfig.service folders={}",
            places.join(":")
        ));
        let mut seen = |name: &str, path: &Path, access: &str| {
            qemu.arg("-fsdev")
                .arg(format!("local,id={name},path={},security_model=none,multidevs=remap{access}", path.display()));
            qemu.arg("-device").arg(format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
        };
        seen("base", &vm.join("root"), ",readonly=on");
        for (number, path) in self.directories.iter().enumerate() {
            seen(&format!("folder{number}"), path, ",readonly=on");
        }
        seen("shared", shared, "");
        qemu
    }
}

/// The number of the ordinary user: files of this machine keep their owner in there, and are to be root's or the
/// user's.
pub fn user() -> u32 {
    if getuid().is_root() { 1000 } else { getuid().as_raw() }
}

/// The archive that the kernel begins with: a shell, its script and modules.
fn initial_files(folder: &TempDir) -> PathBuf {
    let (vm, files) = (parts::vm(), folder.path().join("initial"));
    let busybox = vm.join("root/usr/bin/busybox");
    for name in ["bin", "modules"] {
        fs::create_dir_all(files.join(name)).expect("the directory of a test can be written to");
    }
    fs::copy(&busybox, files.join("bin/busybox")).expect("the set-up has brought it");
    for module in fs::read_dir(vm.join("modules")).expect("the set-up has brought them").flatten() {
        fs::copy(module.path(), files.join("modules").join(module.file_name())).expect("a module can be copied");
    }
    let init = files.join("init");
    fs::write(&init, INIT).expect("the directory of a test can be written to");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    let archive = folder.path().join("initial.cpio");
    let made = Command::new(&busybox)
        .args(["sh", "-c", r#""$0" find . | "$0" cpio -o -H newc > "$1""#])
        .args([&busybox, &archive])
        .current_dir(&files)
        .stderr(Stdio::inherit())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "busybox makes archives");
    archive
}
