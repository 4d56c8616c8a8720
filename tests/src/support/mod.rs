//! What tests stand on: databases, processes, clients and waiting. Nothing in here asserts what Minium does.

pub(crate) mod curl;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod foreign;
pub(crate) mod http;
pub(crate) mod node;
pub(crate) mod pooler;
pub(crate) mod postgres;
pub(crate) mod raw;
pub(crate) mod standin;
pub(crate) mod terminal;
pub(crate) mod wait;

/// Runs each test once on a SQLite file and once on PostgreSQL: `on_both! { name; }` calls `name(Options)`.
macro_rules! on_both {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        mod sqlite {
            $($(#[$doc])* #[tokio::test] async fn $name() {
                super::$name($crate::support::node::Options::file()).await;
            })*
        }
        mod postgres {
            $($(#[$doc])* #[tokio::test] async fn $name() {
                let database = $crate::support::postgres::Database::create().await;
                super::$name($crate::support::node::Options::on(database.url())).await;
            })*
        }
    };
}
pub(crate) use on_both;
