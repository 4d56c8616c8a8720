//! What a role of the database may do, held against what a part of Minium needs: `deploy/postgres/roles.sql` is read, so
//! that what is documented, what is granted and what is checked are the same words.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;
use std::fmt;
use tokio_postgres::types::ToSql;

/// The file that makes the roles.
pub const ROLES_SQL: &str = include_str!("../../../deploy/postgres/roles.sql");

/// What whoever connects wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseRole {
    /// `minium serve`: it owns the schema.
    Node,
    /// `minium worker --database`.
    Worker,
    /// An application that enqueues by SQL.
    Enqueuer,
    /// Whoever looks at jobs and journal by SQL.
    Reader,
}

impl DatabaseRole {
    /// The group role that has what is needed; a node needs to be the owner instead.
    pub fn group(self) -> Option<&'static str> {
        match self {
            DatabaseRole::Node => None,
            DatabaseRole::Worker => Some("minium_worker"),
            DatabaseRole::Enqueuer => Some("minium_enqueuer"),
            DatabaseRole::Reader => Some("minium_reader"),
        }
    }
}

impl fmt::Display for DatabaseRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatabaseRole::Node => "node",
            DatabaseRole::Worker => "worker",
            DatabaseRole::Enqueuer => "enqueuer",
            DatabaseRole::Reader => "reader",
        })
    }
}

/// Something that whoever connects may not do and needs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingGrant {
    /// What it may not do.
    pub words: String,
    /// The statement that mends it.
    pub remedy: String,
}

/// One GRANT of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    privileges: Vec<String>,
    kind: Kind,
    /// Without the schema; empty where all are meant.
    objects: Vec<String>,
    to: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Schema,
    Table,
    Sequence,
    Function,
    AllFunctions,
}

/// $1 names, $2 the privilege. What is not there at all is missing, too.
const TABLES: &str = "
select n.name from unnest($1::text[]) n(name)
  left join pg_catalog.pg_class c on c.relname = n.name and c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'minium')
 where not coalesce(pg_catalog.has_table_privilege(c.oid, $2::text), false) order by 1";
/// $1 names, $2 the privilege, $3 columns of each.
const COLUMNS: &str = "
select n.name from unnest($1::text[]) n(name)
  left join pg_catalog.pg_class c on c.relname = n.name and c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'minium')
 where not coalesce((select bool_and(pg_catalog.has_column_privilege(c.oid, k, $2::text)) from unnest($3::text[]) k), false)
 order by 1";
const SEQUENCES: &str = "
select n.name from unnest($1::text[]) n(name)
  left join pg_catalog.pg_class c on c.relname = n.name and c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = 'minium')
 where not coalesce(pg_catalog.has_sequence_privilege(c.oid, $2::text), false) order by 1";
const SCHEMA: &str = "
select n.name from unnest($1::text[]) n(name)
  left join pg_catalog.pg_namespace s on s.nspname = n.name
 where not coalesce(pg_catalog.has_schema_privilege(s.oid, $2::text), false) order by 1";
/// $1 signatures, or none for all functions that are there.
const FUNCTIONS: &str = "
with there as (
  select p.oid, p.proname || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')' as signature
    from pg_catalog.pg_proc p
   where p.pronamespace = (select oid from pg_catalog.pg_namespace where nspname = 'minium')),
wanted as (
  select signature from there where cardinality($1::text[]) = 0 union select unnest($1::text[]))
select w.signature from wanted w left join there t using (signature)
 where not coalesce(pg_catalog.has_function_privilege(t.oid, $2::text), false) order by 1";

/// A job that nobody ever sees.
const TRIAL: &str = r#"select minium.enqueue('minium-doctor', '[]', '{"queue":"minium-doctor"}')"#;

/// What whoever connects does not own, by its owner. What belongs to tables (indexes, the types of rows) goes with them.
const NOT_OWNED: &str = "
with here as (select oid, nspowner from pg_catalog.pg_namespace where nspname = 'minium'),
owned (place, what, owner) as (
  select 0, 'schema minium', nspowner from here
  union all
  select 1, 'table minium.' || c.relname, c.relowner from pg_catalog.pg_class c, here
   where c.relnamespace = here.oid and c.relkind in ('r', 'p', 'v'))
select pg_catalog.pg_get_userbyid(owner)::text, array_agg(what order by place, what) from owned
 where not pg_catalog.pg_has_role(owner, 'usage') group by owner order by 1";

/// May whoever connects make the schema, where there is none?
const MAY_MAKE: &str = "
select pg_catalog.to_regnamespace('minium') is not null or pg_catalog.has_database_privilege(current_database(), 'create')";

impl PgStore {
    /// What whoever connects may not do, and would need to as `role`. Needs no rights at all. Empty: all is well.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn missing_grants(&self, role: DatabaseRole) -> Result<Vec<MissingGrant>, QueueError> {
        const WHAT: &str = "look what this role may do";
        let user: String = self.step(WHAT, "select current_user::text", &[]).await?.get(0);
        let Some(group) = role.group() else { return self.not_owned(WHAT, &user).await };
        let grants: Vec<Grant> = grants(ROLES_SQL).into_iter().filter(|grant| grant.to == group).collect();
        let mut missing = Vec::new();
        for grant in &grants {
            missing.extend(self.missing_of(WHAT, grant, &user).await?);
        }
        Ok(missing)
    }

    async fn not_owned(&self, what: &'static str, user: &str) -> Result<Vec<MissingGrant>, QueueError> {
        let rows = self.rows(what, NOT_OWNED, &[]).await?;
        let told = |row: &tokio_postgres::Row| {
            let (owner, things): (String, Vec<String>) = (row.get(0), row.get(1));
            let more = things.len().saturating_sub(1);
            let more = if more > 0 { format!(" and {more} of its tables") } else { String::new() };
            let first = &things[0];
            MissingGrant {
                words: format!("{user} does not own the {first}{more}, which {owner} does"),
                remedy: format!("let nodes log in as {owner}, or: alter {first} owner to {};", quoted(user)),
            }
        };
        let mut missing: Vec<MissingGrant> = rows.iter().map(told).collect();
        let make = self.step(what, MAY_MAKE, &[]).await?;
        if !make.get::<_, bool>(0) {
            missing.push(MissingGrant {
                words: format!("there is no schema minium, and {user} may not make one"),
                remedy: format!("create schema minium authorization {};", quoted(user)),
            });
        }
        Ok(missing)
    }

    async fn missing_of(
        &self,
        what: &'static str,
        grant: &Grant,
        user: &str,
    ) -> Result<Vec<MissingGrant>, QueueError> {
        let sql = match grant.kind {
            Kind::Schema => SCHEMA,
            Kind::Table => TABLES,
            Kind::Sequence => SEQUENCES,
            Kind::Function | Kind::AllFunctions => FUNCTIONS,
        };
        let mut missing: Vec<MissingGrant> = Vec::new();
        for privilege in &grant.privileges {
            let rows = match columns(privilege) {
                None => self.rows(what, sql, &[&grant.objects, privilege]).await?,
                Some((word, columns)) => {
                    let params: [&(dyn ToSql + Sync); 3] = [&grant.objects, &word, &columns];
                    self.rows(what, COLUMNS, &params).await?
                }
            };
            let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            if !names.is_empty() {
                missing.push(grant.told(privilege, &names, user));
            }
        }
        Ok(missing)
    }

    /// What the functions of the queue do, in a transaction that is rolled back: a job is enqueued and nobody sees it.
    ///
    /// # Errors
    /// As [`crate::Store::enqueue`]; the role may not enqueue, for one.
    pub async fn try_enqueue(&self) -> Result<(), QueueError> {
        let tried = |mut client: Session| async move {
            let transaction = client.transaction().await?;
            let statement = transaction.prepare_cached(TRIAL).await?;
            transaction.query(&statement, &[]).await?;
            transaction.rollback().await
        };
        self.connections.run("enqueue a job and take it back", tried).await
    }
}

impl Grant {
    fn told(&self, privilege: &str, names: &[String], user: &str) -> MissingGrant {
        const SHOWN_MAX: usize = 4;
        let named = |name: &String| match self.kind {
            Kind::Schema => name.clone(),
            _ => format!("minium.{name}"),
        };
        let all: Vec<String> = names.iter().map(named).collect();
        let (kind, object) = match self.kind {
            Kind::Schema => ("the schema ", format!("schema {}", all.join(", "))),
            Kind::Table => ("", all.join(", ")),
            Kind::Sequence => ("the sequence ", format!("sequence {}", all.join(", "))),
            Kind::Function => ("", format!("function {}", all.join(", "))),
            Kind::AllFunctions => ("", "all functions in schema minium".to_owned()),
        };
        let more = all.len().saturating_sub(SHOWN_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = all[..all.len().min(SHOWN_MAX)].join(", ");
        MissingGrant {
            words: format!("{user} lacks {privilege} on {kind}{shown}{more}"),
            remedy: format!("grant {privilege} on {object} to {};", quoted(user)),
        }
    }
}

/// The GRANT statements of the file. It is ours, and a test reads it: what has another form is passed over there at once.
fn grants(sql: &str) -> Vec<Grant> {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join(" ");
    text.split(';').filter_map(|statement| grant(statement.trim())).collect()
}

fn grant(statement: &str) -> Option<Grant> {
    let (privileges, rest) = statement.strip_prefix("grant ")?.split_once(" on ")?;
    let (on, to) = rest.rsplit_once(" to ")?;
    let (kind, names) = match on.trim() {
        "all functions in schema minium" => (Kind::AllFunctions, ""),
        on => [("schema ", Kind::Schema), ("sequence ", Kind::Sequence), ("function ", Kind::Function)]
            .into_iter()
            .find_map(|(word, kind)| Some((kind, on.strip_prefix(word)?)))
            .unwrap_or((Kind::Table, on)),
    };
    let object = |name: &str| name.trim().trim_start_matches("minium.").to_owned();
    let objects = match kind {
        Kind::AllFunctions => Vec::new(),
        // its signature has commas of its own: one is named at a time
        Kind::Function => vec![object(names)],
        Kind::Schema | Kind::Table | Kind::Sequence => names.split(',').map(object).collect(),
    };
    // one that has columns, and so commas of its own, stands alone
    let privileges = match columns(privileges) {
        Some(_) => vec![privileges.trim().to_owned()],
        None => privileges.split(',').map(|word| word.trim().to_owned()).collect(),
    };
    Some(Grant { privileges, kind, objects, to: to.trim().to_owned() })
}

/// A privilege for some columns, as `update (a, b)`.
fn columns(privilege: &str) -> Option<(&str, Vec<&str>)> {
    let (word, columns) = privilege.trim().strip_suffix(')')?.split_once('(')?;
    Some((word.trim(), columns.split(',').map(str::trim).collect()))
}

/// A name as SQL has it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_grant_of_the_file_is_read() {
        let read = grants(ROLES_SQL);
        // the only place where the words may stand otherwise is a comment
        let written = ROLES_SQL.lines().filter(|line| line.starts_with("grant ")).count();
        assert_eq!((read.len(), written), (13, 13));
        for role in [DatabaseRole::Worker, DatabaseRole::Enqueuer, DatabaseRole::Reader] {
            assert!(read.iter().any(|grant| Some(&*grant.to) == role.group()), "{role}");
        }
        let enqueue = read.iter().find(|grant| grant.kind == Kind::Function).unwrap();
        assert_eq!(enqueue.objects, ["enqueue(text, jsonb, jsonb)"]);
        let jobs = read.iter().find(|grant| grant.objects.first().is_some_and(|name| name == "job")).unwrap();
        assert_eq!((jobs.privileges.len(), jobs.objects.len()), (4, 14));
        let limits = read.iter().find(|grant| grant.objects == ["limit_rule"]).unwrap();
        let [privilege] = &limits.privileges[..] else { panic!("{limits:?}") };
        assert_eq!(columns(privilege), Some(("update", vec!["tokens", "filled", "turn"])));
        let journal: Vec<_> =
            read.iter().filter(|grant| grant.objects.iter().any(|name| name == "entry")).collect();
        assert!(journal.len() == 1 && journal[0].privileges == ["insert"], "{journal:?}");
    }

    #[test]
    fn what_is_missing_is_told_with_the_statement_that_mends_it() {
        let grant = grant("grant select, insert on minium.job, minium.edge to minium_worker").unwrap();
        let told = grant.told("insert", &["edge".to_owned(), "job".to_owned()], "Ops-7");
        assert_eq!(told.words, "Ops-7 lacks insert on minium.edge, minium.job");
        assert_eq!(told.remedy, "grant insert on minium.edge, minium.job to \"Ops-7\";");
    }
}
