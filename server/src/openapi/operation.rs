//! One operation of the document: what it takes, what it answers, and how it may be refused.
//!
//! Schemas are named and stand in `schemas.json`; here they are only pointed at. Refusals are told by their codes, and those
//! that any operation may meet are added to each.

use minium_protocol::ErrorCode;
use std::collections::BTreeMap;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::{ContentBuilder, Header, Ref, Required, SecurityRequirement};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// Who may ask.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope {
    /// Everybody.
    None,
    /// Whoever has a scope of this kind: the verb of the path, with its topic.
    Of(&'static str),
}

/// An operation as it is put together.
pub(super) struct Operation {
    pub(super) path: &'static str,
    pub(super) method: HttpMethod,
    builder: OperationBuilder,
    refusals: Vec<ErrorCode>,
    scope: Scope,
}

/// An operation of some part of the interface; `id` is its name in clients that are made of the document.
pub(super) fn operation(
    method: HttpMethod,
    path: &'static str,
    (tag, id): (&'static str, &'static str),
    scope: Scope,
    summary: &'static str,
) -> Operation {
    let builder = OperationBuilder::new().tag(tag).operation_id(Some(id)).summary(Some(summary));
    let mut refusals = vec![ErrorCode::InvalidRequest];
    // a Host that is none of ours is refused to everybody
    refusals.extend([ErrorCode::Forbidden, ErrorCode::Unauthorized]);
    if matches!(scope, Scope::Of(_)) {
        refusals.extend([ErrorCode::RateLimited, ErrorCode::Unavailable]);
    }
    Operation { path, method, builder, refusals, scope }
}

impl Operation {
    /// A part of the path.
    pub(super) fn of(self, name: &str, schema: &str, description: &str) -> Operation {
        let part = parameter(name, schema, description).parameter_in(ParameterIn::Path);
        self.with(part.required(Required::True).build())
    }

    /// A parameter of the query, which may be left out.
    pub(super) fn query(self, name: &str, schema: &str, description: &str) -> Operation {
        let part = parameter(name, schema, description).parameter_in(ParameterIn::Query);
        self.with(part.required(Required::False).build())
    }

    /// A header that is looked at.
    pub(super) fn header(self, name: &str, schema: &str, description: &str) -> Operation {
        let part = parameter(name, schema, description).parameter_in(ParameterIn::Header);
        self.with(part.required(Required::False).build())
    }

    fn with(self, parameter: Parameter) -> Operation {
        Operation { builder: self.builder.parameter(parameter), ..self }
    }

    /// A body of JSON.
    pub(super) fn takes(self, schema: &str, required: Required) -> Operation {
        let body = RequestBodyBuilder::new().content(JSON, content(schema)).required(Some(required));
        self.body(body.build())
    }

    /// Its query may grow beyond what a head may have; then HTTP itself refuses it, without a problem.
    pub(super) fn may_be_too_long(self) -> Operation {
        self.answers_nothing(431, "The query is too long.")
    }

    /// A message as its body: text or binary, and nothing at all is an empty one.
    pub(super) fn takes_message(self) -> Operation {
        let body = RequestBodyBuilder::new()
            .content("text/plain", content("Text"))
            .content(JSON, content("Anything"))
            .content("application/octet-stream", content("Text"))
            .required(Some(Required::False));
        self.body(body.build())
    }

    fn body(mut self, body: RequestBody) -> Operation {
        self.refusals.extend([ErrorCode::InvalidJson, ErrorCode::PayloadTooLarge, ErrorCode::Timeout]);
        Operation { builder: self.builder.request_body(Some(body)), ..self }
    }

    /// Answers JSON.
    pub(super) fn answers(self, status: u16, description: &str, schema: &str) -> Operation {
        self.answers_as(status, description, &[(JSON, schema)], &[])
    }

    /// Answers with nothing in it.
    pub(super) fn answers_nothing(self, status: u16, description: &str) -> Operation {
        self.answers_as(status, description, &[], &[])
    }

    /// Answers in one of several media types, with these headers.
    pub(super) fn answers_as(
        self,
        status: u16,
        description: &str,
        contents: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Operation {
        let mut response = ResponseBuilder::new().description(description);
        for (kind, schema) in contents {
            response = response.content(*kind, content(schema));
        }
        for (name, schema) in headers {
            response = response.header(*name, Header::new(Ref::from_schema_name(*schema)));
        }
        Operation { builder: self.builder.response(status.to_string(), response.build()), ..self }
    }

    /// May be refused for these reasons, besides the usual ones.
    pub(super) fn refuses(mut self, codes: &[ErrorCode]) -> Operation {
        self.refusals.extend(codes);
        self
    }

    /// It needs the database, which may be away or full.
    pub(super) fn asks_the_store(self) -> Operation {
        self.refuses(&[ErrorCode::Unavailable, ErrorCode::Internal])
    }

    /// All of it.
    pub(super) fn build(self) -> utoipa::openapi::path::Operation {
        let mut refusals: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
        for code in self.refusals {
            let codes = refusals.entry(code.status().as_u16()).or_default();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        let mut builder = self.builder;
        for (status, codes) in refusals {
            let words: Vec<String> =
                codes.iter().map(|code| format!("`{code}`: {}.", code.title())).collect();
            let mut response =
                ResponseBuilder::new().description(words.join(" ")).content(PROBLEM, content("Problem"));
            if status == ErrorCode::Unauthorized.status().as_u16() {
                // a foreign origin, in Mercury's words
                response = response.content("text/plain", content("Text"));
            }
            builder = builder.response(status.to_string(), response.build());
        }
        if let Scope::Of(scope) = self.scope {
            // a node without [auth] asks nothing of anybody, and one with it may grant this to everybody
            let needs = [SecurityRequirement::new("bearer", [scope]), SecurityRequirement::default()];
            builder = builder.securities(Some(needs));
        }
        builder.build()
    }
}

fn parameter(name: &str, schema: &str, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .description(Some(description))
        .schema(Some(Ref::from_schema_name(schema)))
}

fn content(schema: &str) -> utoipa::openapi::content::Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build()
}
