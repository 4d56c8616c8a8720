//! Work over WebSocket. First what stands behind the sockets: pushes, claims for pullers, and their words, on every
//! kind of database.

/// The real store, which counts how it is asked.
mod counted;

/// A node's work, and pullers that the tests hold in their hands.
mod desk;

/// Pushes become jobs.
mod pushing;

/// Who gets which jobs, and how many.
mod pulling;

/// What pullers say, and what they are told.
mod words;

/// Many pullers, and a database that goes away.
mod strain;

/// `minium worker --url`, killed and cut.
mod worker;

/// The examples' workers, and the images' walk-through.
mod examples;

/// Runs each test on every kind of database.
macro_rules! on_each_store {
    ($($name:ident)*) => {
        on_each_store!(@ postgres $($name)*);
        on_each_store!(@ sqlite_memory $($name)*);
        on_each_store!(@ sqlite_file $($name)*);
    };
    (@ $place:ident $($name:ident)*) => {
        mod $place {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::store::fixture::Fixture::$place().await).await;
            })*
        }
    };
}
pub(crate) use on_each_store;
