//! The example of a broker inside another program does what it says.

#![allow(unreachable_pub, reason = "a program has its main function to itself")]

#[path = "../examples/embedded.rs"]
mod embedded;

#[test]
fn the_example_runs_to_its_end() {
    embedded::main().unwrap();
}
