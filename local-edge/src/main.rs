//! The program `local-edge`. All of it is in the library of the same name, where tests can reach it.

use program::Exit;

fn main() -> Exit {
    local_edge::main()
}
