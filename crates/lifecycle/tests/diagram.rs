//! The diagram in the documentation is made from the table of transitions.

use std::path::Path;

#[test]
fn the_diagram_in_the_documentation_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lifecycle.md");
    let text = std::fs::read_to_string(&path).expect("docs/lifecycle.md can be read");
    let drawn = text
        .split_once("<!-- diagram: begin -->")
        .and_then(|(_, rest)| rest.split_once("<!-- diagram: end -->"))
        .map(|(drawn, _)| drawn.trim())
        .expect("docs/lifecycle.md has the lines `<!-- diagram: begin -->` and `<!-- diagram: end -->`");
    let made = format!("```mermaid\n{}```", lifecycle::diagram());
    assert_eq!(drawn, made, "put this between the lines in docs/lifecycle.md:\n{made}");
}

#[test]
fn every_phase_can_be_reached_and_left() {
    for phase in lifecycle::Phase::ALL {
        let name = phase.name();
        assert!(lifecycle::TRANSITIONS.iter().any(|(_, to, _)| *to == Some(phase)), "nothing leads to {name}");
        assert!(lifecycle::TRANSITIONS.iter().any(|(from, ..)| *from == Some(phase)), "nothing leads out of {name}");
    }
}
