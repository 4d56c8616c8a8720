//! Is a node there, is it whole, what does it measure, and which time has it?

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::read;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;

/// Whether a node has everything that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// It has.
    pub ready: bool,
    /// Else what is wrong, in its own words.
    pub why: Option<String>,
}

impl Client {
    /// Is the server up and whole?
    ///
    /// # Errors
    /// That it cannot be reached.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        self.readiness().await.map(|readiness| readiness.ready)
    }

    /// As [`Client::ready`], with what is wrong.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        let not = |why: String| Ok(Readiness { ready: false, why: Some(why) });
        match self.request(Request::new(Method::GET, "readyz")).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(Readiness { ready: true, why: None }),
            Ok(answer) => not(format!("the server answered {}", answer.status.as_u16())),
            Err(ClientError::Problem(problem)) => not(problem.detail.clone().unwrap_or(problem.title)),
            Err(ClientError::Status { status, text }) => not(format!("the server answered {status}: {text}")),
            Err(error) => Err(error),
        }
    }

    /// Does a Minium answer there, whole or not? Something else that speaks HTTP has another answer.
    ///
    /// # Errors
    /// That nobody can be reached.
    pub async fn is_minium(&self) -> Result<bool, ClientError> {
        #[derive(Deserialize)]
        struct Ready {
            ready: bool,
        }
        match self.request(Request::new(Method::GET, "readyz")).await {
            Ok(answer) => Ok(read::<Ready>("GET /readyz", &answer.body).is_ok_and(|answer| answer.ready)),
            Err(ClientError::Problem(_)) => Ok(true),
            Err(ClientError::Status { .. } | ClientError::Answer { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the server's clock says, to the second; `None` where it does not say.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, ClientError> {
        self.request(Request::new(Method::GET, "healthz")).await.map(|answer| answer.date)
    }

    /// What the server measures, in Prometheus' text form.
    ///
    /// # Errors
    /// The server's problem, or that it cannot be reached.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let answer = self.request(Request::new(Method::GET, "metrics")).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}
