//! What a recorder tells the server: how far everything is on its disk.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::text;
use crate::segment;
use http::Method;
use minium_protocol::Position;
use serde::Serialize;

impl Client {
    /// Everything of these topics up to this position is kept elsewhere, by the recorder of this name.
    ///
    /// # Errors
    /// `not_found` from a server that does not wait for recorders; its other problems, or that it cannot be reached.
    pub async fn confirm_recorder(
        &self,
        name: &str,
        position: Position,
        topics: &[String],
    ) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Wire<'a> {
            position: String,
            topics: &'a [String],
        }
        let path = format!("api/v1/recorders/{}", segment::of(name));
        let body = text(&Wire { position: position.to_string(), topics })?;
        self.request(Request::new(Method::PUT, &path).json(body)).await.map(drop)
    }
}
