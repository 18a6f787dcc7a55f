//! The program `hpc-consumer`. All of it is in the library of the same name, where tests can reach it.

use program::Exit;

fn main() -> Exit {
    hpc_consumer::main()
}
