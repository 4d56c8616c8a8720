//! A connection as the operations see it: statements that are prepared once, or, behind a pooler, never.
//!
//! A pooler in transaction mode (pgbouncer) gives each transaction whichever server connection is free. A statement that was
//! prepared by name on one is unknown on the next; so there each goes out unnamed, in one message with its parameters, which
//! needs their types beforehand. These are asked once for each text. (None of them may be a type of our own, which the driver
//! would ask about by a statement that it keeps.)

use super::tls::Tls;
use deadpool_postgres::{Object, Transaction};
use std::collections::HashMap;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Error, Row, Statement};

/// So many texts are remembered. There are some dozens, and lists by filter bring some more.
const TEXTS_MAX: usize = 1_000;

type Params<'a> = [&'a (dyn ToSql + Sync)];

/// The types of the parameters of statements, where they are needed.
#[derive(Debug)]
pub(super) struct Types {
    config: Config,
    tls: Tls,
    known: Mutex<HashMap<String, Arc<[Type]>>>,
}

impl Types {
    pub(super) fn new(config: Config, tls: Tls) -> Types {
        Types { config, tls, known: Mutex::default() }
    }

    fn known(&self, sql: &str) -> Option<Arc<[Type]>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned()
    }

    fn learn(&self, sql: &str, statement: &Statement) -> Arc<[Type]> {
        let types: Arc<[Type]> = statement.params().into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TEXTS_MAX {
            known.clear();
        }
        known.insert(sql.to_owned(), types.clone());
        types
    }

    /// Asks on a connection of its own: within one transaction, so that nothing of it is left in whichever session that has.
    async fn ask(&self, sql: &str) -> Result<Arc<[Type]>, Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let mut ask = pin!(async {
            client.batch_execute("begin").await?;
            let types = self.learn(sql, &client.prepare(sql).await?);
            client.batch_execute("rollback").await?;
            Ok(types)
        });
        tokio::select! {
            types = &mut ask => types,
            ended = connection => {
                ended?;
                ask.await
            }
        }
    }
}

/// A statement that can be run on the connection on which it was prepared.
#[derive(Debug, Clone)]
pub(super) enum Prepared {
    Named(Statement),
    Unnamed(Arc<str>, Arc<[Type]>),
}

/// What is run: a prepared statement, or a text.
pub(super) enum Sql<'a> {
    Prepared(&'a Prepared),
    Text(&'a str),
}

impl<'a> From<&'a Prepared> for Sql<'a> {
    fn from(prepared: &'a Prepared) -> Sql<'a> {
        Sql::Prepared(prepared)
    }
}

impl<'a> From<&'a str> for Sql<'a> {
    fn from(text: &'a str) -> Sql<'a> {
        Sql::Text(text)
    }
}

/// A connection of the pool.
#[derive(Debug)]
pub(super) struct Session {
    client: Object,
    types: Option<Arc<Types>>,
}

/// A transaction on it.
pub(super) struct Work<'a> {
    transaction: Transaction<'a>,
    types: Option<Arc<Types>>,
}

impl Session {
    /// With `types`, behind a pooler.
    pub(super) fn new(client: Object, types: Option<Arc<Types>>) -> Session {
        Session { client, types }
    }

    pub(super) async fn transaction(&mut self) -> Result<Work<'_>, Error> {
        Ok(Work { transaction: self.client.transaction().await?, types: self.types.clone() })
    }
}

impl Work<'_> {
    pub(super) async fn transaction(&mut self) -> Result<Work<'_>, Error> {
        Ok(Work { transaction: self.transaction.transaction().await?, types: self.types.clone() })
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await
    }

    pub(super) async fn rollback(self) -> Result<(), Error> {
        self.transaction.rollback().await
    }
}

impl Deref for Session {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl<'a> Deref for Work<'a> {
    type Target = tokio_postgres::Transaction<'a>;

    fn deref(&self) -> &tokio_postgres::Transaction<'a> {
        &self.transaction
    }
}

impl Session {
    /// The types of a statement's parameters, where it goes out unnamed.
    async fn types_of(&self, sql: &str) -> Result<Option<Arc<[Type]>>, Error> {
        let Some(types) = &self.types else { return Ok(None) };
        match types.known(sql) {
            Some(known) => Ok(Some(known)),
            // once for each text, and large: in a box
            None => Box::pin(types.ask(sql)).await.map(Some),
        }
    }
}

impl Work<'_> {
    /// The same within the transaction: it has a session of the server, and may not wait for another one, which it may keep from
    /// whoever has that.
    async fn types_of(&self, sql: &str) -> Result<Option<Arc<[Type]>>, Error> {
        let Some(types) = &self.types else { return Ok(None) };
        match types.known(sql) {
            Some(known) => Ok(Some(known)),
            // closed again with the end of this line, before the transaction can end
            None => Ok(Some(types.learn(sql, &Box::pin(self.transaction.prepare(sql)).await?))),
        }
    }
}

/// The same for a connection and a transaction.
macro_rules! statements {
    ($type:ty, $field:ident: $($name:ident, $name_typed:ident -> $answer:ty;)*) => {
        impl $type {
            pub(super) async fn prepare_cached(&self, sql: &str) -> Result<Prepared, Error> {
                match self.types_of(sql).await? {
                    None => Ok(Prepared::Named(self.$field.prepare_cached(sql).await?)),
                    Some(types) => Ok(Prepared::Unnamed(sql.into(), types)),
                }
            }

            $(pub(super) async fn $name<'s>(
                &self,
                sql: impl Into<Sql<'s>>,
                params: &Params<'_>,
            ) -> Result<$answer, Error> {
                let (text, types) = match sql.into() {
                    Sql::Prepared(Prepared::Named(statement)) => {
                        return self.$field.$name(statement, params).await;
                    }
                    Sql::Prepared(Prepared::Unnamed(text, types)) => (&**text, Some(types.clone())),
                    Sql::Text(text) => (text, self.types_of(text).await?),
                };
                match types {
                    None => self.$field.$name(text, params).await,
                    Some(types) => self.$field.$name_typed(text, &typed(params, &types)).await,
                }
            })*
        }
    };
}

statements! { Session, client:
    query, query_typed -> Vec<Row>;
    query_opt, query_typed_opt -> Option<Row>;
    query_one, query_typed_one -> Row;
    execute, execute_typed -> u64;
}

statements! { Work<'_>, transaction:
    query, query_typed -> Vec<Row>;
    query_opt, query_typed_opt -> Option<Row>;
    query_one, query_typed_one -> Row;
    execute, execute_typed -> u64;
}

fn typed<'a>(params: &Params<'a>, types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    params.iter().copied().zip(types.iter().cloned()).collect()
}
