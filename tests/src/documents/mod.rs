//! Every command that the documents show, run as it stands there.
//!
//! A page is one session in a scratch directory ([`session`]); what cannot be run here says so in a mark that readers do
//! not see ([`page`]), and stands in [`NOT_RUN`]. A block that is neither run nor marked fails, and so does a page with commands
//! that is not in the list below.

mod page;
mod prose;
mod session;
mod snippet;

use crate::support::node::checkout;
pub(crate) use page::documents;
use page::{Page, Step};
use session::Session;
use std::fmt::Write as _;

async fn follow(name: &str) {
    let page = Page::read(&checkout(), name);
    assert!(page.has_work(), "{name} has nothing to run");
    Session::open(name).await.follow(&page).await;
}

/// A test for each page, and their list.
macro_rules! pages {
    ($($test:ident: $name:literal,)*) => {
        /// The pages that are run.
        const RUN: &[&str] = &[$($name),*];
        $(
            #[tokio::test]
            async fn $test() {
                follow($name).await;
            }
        )*
    };
}

pages! {
    readme: "README.md",
    audit: "docs/audit.md",
    clients: "docs/clients.md",
    from_minion_and_mercury: "docs/from-minion-and-mercury.md",
    getting_started: "docs/getting-started.md",
    hooks: "docs/hooks.md",
    locks: "docs/locks.md",
    minion: "docs/minion.md",
    minion_attach: "docs/minion-attach.md",
    security: "docs/security.md",
    sinks: "docs/sinks.md",
    examples: "examples/README.md",
    livesys: "examples/livesys/README.md",
    openaddresses: "examples/openaddresses/README.md",
}

/// How many blocks of each page are not run. Whoever adds one says so here too.
const NOT_RUN: &[(&str, usize)] = &[
    ("CONTRIBUTING.md", 1),
    ("README.md", 1),
    ("docs/audit.md", 1),
    ("docs/capacity.md", 1),
    ("docs/clients.md", 3),
    ("docs/hooks.md", 1),
    ("docs/install.md", 4),
    ("docs/minion-attach.md", 1),
    ("docs/security.md", 3),
    ("docs/top.md", 1),
    ("examples/openaddresses/README.md", 1),
];

#[test]
fn each_page_with_commands_is_run_and_each_block_that_is_not_says_why() {
    let (mut wrong, mut listed) = (Vec::new(), String::new());
    for name in documents(&checkout()) {
        let page = Page::read(&checkout(), &name);
        if page.has_work() && !RUN.contains(&name.as_str()) {
            wrong.push(format!("{name} has commands and is not in the list of pages"));
        }
        let mut count = 0;
        for block in &page.blocks {
            let Step::NotRun(why) = &block.step else { continue };
            count += 1;
            writeln!(listed, "{name}:{}: {why}", block.line).unwrap();
            if why.len() < 10 {
                wrong.push(format!("{name}:{}: why is it not run?", block.line));
            }
        }
        let known = NOT_RUN.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count);
        if known != count {
            wrong.push(format!("{name}: {count} blocks are not run, and {known} are known"));
        }
    }
    assert!(wrong.is_empty(), "{}\nnot run are:\n{listed}", wrong.join("\n"));
    assert!(RUN.iter().all(|name| checkout().join(name).exists()));
}
