//! The program `laptop-consumer`. All of it is in the library beside this file.

fn main() -> program::Exit {
    laptop_consumer::main()
}
