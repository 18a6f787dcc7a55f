//! The program `qpu-broker`. All of it is in the library of the same name, where tests can reach it.

use program::Exit;

fn main() -> Exit {
    qpu_broker::main()
}
