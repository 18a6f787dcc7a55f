//! A system call that a confined run may not make: to set a limit of a process of another run, of the keeper or the
//! daemon. With a limit of processor time that has passed, or of no open files, it would end them.
//!
//! The kernel asks a small program before each system call (seccomp). The one here allows all else, in all the ways in
//! which programs call the system, so that none is ended that works today.

use std::io;

use seccompiler::{Error, apply_filter, sock_filter};

/// The instructions that are used, by their numbers in `linux/bpf_common.h`.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Where the parts of a call lie: its number, its architecture, the halves of its first and third argument, the lower
/// one first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const PROCESS: u32 = 16;
const NEW_LIMIT: [u32; 2] = [32, 36];

/// Answers: the call is made, or it fails with `EPERM`.
const ALLOW: u32 = 0x7fff_0000;
const NOT_PERMITTED: u32 = 0x0005_0001;

/// `prlimit64` in each way to call it, by the number of the way and its own there.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(u32, u32)] = &[(0xc000_003e, 302), (0xc000_003e, 302 | 0x4000_0000), (0x4000_0003, 340)];
#[cfg(target_arch = "aarch64")]
const CALLS: &[(u32, u32)] = &[(0xc000_00b7, 261), (0x4000_0028, 369)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CALLS: &[(u32, u32)] = &[];

/// Applies it to the calling thread, and to what it starts. False where the kernel does not have it.
pub(super) fn forbid_limits_of_others() -> io::Result<bool> {
    match apply_filter(&program(CALLS)) {
        Ok(()) => Ok(!CALLS.is_empty()),
        Err(Error::Seccomp(_)) => Ok(false),
        Err(error) => Err(io::Error::other(format!("a run cannot be kept from the limits of others: {error}"))),
    }
}

/// Each call is looked for in turn; the last instructions are the answers.
fn program(calls: &[(u32, u32)]) -> Vec<sock_filter> {
    let load = |k| sock_filter { code: LOAD, jt: 0, jf: 0, k };
    let skip_if = |k, equal, other| sock_filter { code: JUMP_IF_EQUAL, jt: equal, jf: other, k };
    let answer = |k| sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let mut program = Vec::new();
    for &(architecture, number) in calls {
        program.extend([
            load(ARCHITECTURE),
            skip_if(architecture, 0, 9),
            load(NUMBER),
            skip_if(number, 0, 7),
            load(PROCESS),
            // 0 is the process itself.
            skip_if(0, 5, 0),
            load(NEW_LIMIT[0]),
            skip_if(0, 0, 2),
            load(NEW_LIMIT[1]),
            skip_if(0, 1, 0),
            answer(NOT_PERMITTED),
        ]);
    }
    program.push(answer(ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel comes to with this call.
    fn answer(calls: &[(u32, u32)], architecture: u32, number: u32, process: u32, new_limit: u64) -> u32 {
        let program = program(calls);
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match (code, k) {
                (LOAD, NUMBER) => loaded = number,
                (LOAD, ARCHITECTURE) => loaded = architecture,
                (LOAD, PROCESS) => loaded = process,
                (LOAD, 32) => loaded = new_limit as u32,
                (LOAD, 36) => loaded = (new_limit >> 32) as u32,
                (JUMP_IF_EQUAL, k) => at += usize::from(if loaded == k { jt } else { jf }),
                (RETURN, k) => return k,
                _ => panic!("{code} {k}"),
            }
        }
    }

    #[test]
    fn only_the_limits_of_others_cannot_be_set() {
        let calls = [(1, 302), (1, 303), (2, 340)];
        for (architecture, number) in calls {
            for limit in [1, 1 << 32, 0x7fff_dead_0000] {
                assert_eq!(answer(&calls, architecture, number, 7, limit), NOT_PERMITTED);
                assert_eq!(answer(&calls, architecture, number, 0, limit), ALLOW, "its own");
                assert_eq!(answer(&calls, architecture, number + 2, 7, limit), ALLOW, "another call");
                assert_eq!(answer(&calls, 3, number, 7, limit), ALLOW, "in another way");
            }
            assert_eq!(answer(&calls, architecture, number, 7, 0), ALLOW, "to read them");
        }
        assert_eq!(answer(&calls, 2, 302, 7, 1), ALLOW);
        assert_eq!(answer(&[], 1, 302, 7, 1), ALLOW);
    }
}
