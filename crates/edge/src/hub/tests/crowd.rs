//! Many who look at the same.

use super::*;

#[test]
fn a_piece_of_a_log_is_there_once_however_many_look() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    world.report("s", &[job("j", "running", 1)]);
    let target = "/jobs/j/logs?follow=1&stream=stdout&from=0";
    let mut crowd: Vec<Follower> = (0..1_000).map(|_| world.ask("GET", target)).collect();
    world.says("s", log("j", 0, "first\n", false));
    // One who was here before, and has the first piece.
    crowd.push(world.ask_with("GET", target, "", Some("1.6.0")));
    // One who has not: it gets what is kept.
    let late = world.ask("GET", target);
    assert!(world.pieces(late).contains("first"));
    for (offset, text) in [(6, "second é\n".repeat(4_000)), (40_006, "third\n".to_owned())] {
        world.says("s", log("j", offset, &text, false));
        let pieces = world.effects.iter().filter_map(|effect| match effect {
            Effect::Piece(follower, piece) => Some((*follower, piece)),
            _ => None,
        });
        let pieces: Vec<(Follower, &Arc<str>)> = pieces.collect();
        assert_eq!(pieces.len(), crowd.len() + 1);
        assert!(pieces.iter().all(|(_, piece)| Arc::ptr_eq(piece, pieces[0].1)), "at {offset}");
    }
    // Whoever also looks at the other stream is told of another place, and of the same text.
    let both = world.ask("GET", "/jobs/j/logs?follow=1&from=40012");
    world.says("s", log("j", 40_012, "fourth\n", false));
    assert!(world.pieces(both).contains("fourth") && world.pieces(crowd[0]).contains("fourth"));
}
