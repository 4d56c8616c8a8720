//! What docs/clients.md shows of the Rust client, as it stands there, against a node.

use crate::support::node::Node;
use crate::support::wait;
use futures::StreamExt;
use minium_client::{Client, ConnectOptions, Event};
use minium_protocol::After;

#[expect(clippy::print_stdout, reason = "it stands so in the document")]
async fn follow(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(url, None)?;
    let connection = client.connect(ConnectOptions::default())?;

    let mut events = connection.subscribe(&"task/import".parse()?, After::Earliest).await?;
    while let Some(event) = events.next().await {
        match event? {
            Event::Message(message) => match message.task_event()? {
                Some(event) => println!("{} is {}", event.job.id, event.job.state),
                None => println!("{}: {}", message.topic, message.payload),
            },
            Event::Lost(_) => events.begin(After::Earliest).await?,
            Event::Gap { .. } | Event::CaughtUp { .. } => {}
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_snippet_of_the_rust_client_subscribes() {
    let node = Node::memory().await;
    let url = node.http("");
    let subscribed = wait::until("the subscription", async || {
        let listed = node.get("/api/v1/sessions").await.json();
        let sessions = listed["sessions"].as_array()?;
        sessions.iter().any(|s| s["filters"].to_string().contains("task/import")).then_some(())
    });
    tokio::select! {
        ended = follow(&url) => panic!("it ended: {ended:?}"),
        () = subscribed => {}
    }
}
