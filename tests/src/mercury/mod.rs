//! Mercury's rules in plain mode, kept to the letter or mended, one test each. Every rule runs twice: Python's clients
//! against Perl's, and the other way round.
//!
//! That something does not arrive is shown by what arrives in its place: a marker that was sent later, by the same
//! way, comes first.

mod fix;
mod keep;

use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};

/// The default limit on messages (L-1).
const MESSAGE_BYTES_MAX: usize = 262_144;

/// A node, and both clients in both parts: the first sends, the second receives.
async fn cast(options: Options) -> (Node, [(Foreign, Foreign); 2]) {
    let node = Node::start(options).await;
    (node, [(Foreign::python(), Foreign::perl()), (Foreign::perl(), Foreign::python())])
}
