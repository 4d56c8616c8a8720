//! What is in the database: Minion's tables, what we may do with them, and what is attached already.

use super::{AttachError, AttachOptions, Attached, VERSION};
use crate::postgres::failed;
use deadpool_postgres::Object;
use tokio_postgres::Row;

const WHAT: &str = "look for Minion";

/// Names of the triggers.
const TRIGGERS: [&str; 4] = ["minium_inserted", "minium_updated", "minium_deleted", "minium_truncated"];

/// What the functions read of a job, and its type.
const JOB_COLUMNS: &[(&str, &str)] = &[
    ("id", "bigint"),
    ("args", "jsonb"),
    ("attempts", "integer"),
    ("created", "timestamp with time zone"),
    ("delayed", "timestamp with time zone"),
    ("expires", "timestamp with time zone"),
    ("finished", "timestamp with time zone"),
    ("lax", "boolean"),
    ("notes", "jsonb"),
    ("parents", "bigint[]"),
    ("priority", "integer"),
    ("queue", "text"),
    ("result", "jsonb"),
    ("retried", "timestamp with time zone"),
    ("retries", "integer"),
    ("started", "timestamp with time zone"),
    ("state", "minion_state"),
    ("task", "text"),
    ("worker", "bigint"),
];

/// And of a worker.
const WORKER_COLUMNS: &[(&str, &str)] = &[("id", "bigint"), ("host", "text"), ("pid", "integer")];

/// Minion's tables, as they are named in SQL.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) jobs: String,
    pub(super) workers: String,
    oid: u32,
}

/// What is there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) database: String,
    pub(super) server_version: String,
    pub(super) place: Place,
    pub(super) minion_version: Option<i64>,
    pub(super) attached: Option<Attached>,
    pub(super) warnings: Vec<String>,
}

impl Found {
    /// One Minion can be attached, and it must be this one.
    pub(super) fn refuse_strangers(&self) -> Result<(), AttachError> {
        match &self.attached {
            Some(attached) if attached.jobs != self.place.jobs => {
                Err(AttachError::AnotherAttached { jobs: attached.jobs.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// Looks at everything; an error is what would be in the way of attaching.
pub(super) async fn find(client: &Object, options: &AttachOptions) -> Result<Found, AttachError> {
    let sql = "select current_database()::text, current_user::text, current_setting('server_version'),
                      current_setting('server_encoding')";
    let about = one(client, sql, &[]).await?;
    let (database, role): (String, String) = (about.get(0), about.get(1));
    let (place, schema) = place(client, options, &database).await?;
    let mut missing = columns(client, &place.jobs, JOB_COLUMNS).await?;
    missing.extend(columns(client, &place.workers, WORKER_COLUMNS).await?);
    let encoding: &str = about.get(3);
    if encoding != "UTF8" {
        missing.push(format!("the database's encoding is {encoding}, JSON needs UTF8"));
    }
    // it becomes part of the functions' text
    if schema.contains(['$', '{']) {
        missing.push("the schema's name has a $ or a { in it".to_owned());
    }
    if !missing.is_empty() {
        return Err(AttachError::NotUnderstood { place: schema, missing });
    }
    let missing = rights(client, &place, &schema).await?;
    if !missing.is_empty() {
        return Err(AttachError::NotAllowed { role, missing });
    }
    let minion_version = minion_version(client, &schema).await?;
    let attached = attached(client, &place).await?;
    let warnings = warnings(client, &place).await?;
    Ok(Found { database, server_version: about.get(2), place, minion_version, attached, warnings })
}

async fn query(
    client: &Object,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Vec<Row>, AttachError> {
    client.query(sql, parameters).await.map_err(|e| AttachError::Journal(failed(WHAT, e)))
}

async fn one(
    client: &Object,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Row, AttachError> {
    client.query_one(sql, parameters).await.map_err(|e| AttachError::Journal(failed(WHAT, e)))
}

/// Minion's tables, and their schema: the one that was named, else the first on the search path, as Minion finds them.
async fn place(
    client: &Object,
    options: &AttachOptions,
    database: &str,
) -> Result<(Place, String), AttachError> {
    let sql = "select c.oid, n.nspname::text, pg_table_is_visible(c.oid),
                      format('%I.minion_jobs', n.nspname), format('%I.minion_workers', n.nspname)
                 from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where c.relname = 'minion_jobs' and c.relkind in ('r', 'p')
                order by n.nspname";
    let tables = query(client, sql, &[]).await?;
    let wanted = |row: &&Row| match &options.schema {
        Some(schema) => row.get::<_, &str>(1) == schema,
        None => row.get(2),
    };
    let Some(row) = tables.iter().find(wanted) else {
        let place = match &options.schema {
            Some(schema) => format!("schema {schema} of database {database}"),
            None => format!("database {database} on the search path"),
        };
        let elsewhere: Vec<String> =
            tables.iter().map(|row| format!("--schema {}", row.get::<_, &str>(1))).collect();
        let hint = match elsewhere.as_slice() {
            [] => String::new(),
            some => format!("; there is one by {}", some.join(", ")),
        };
        return Err(AttachError::NoMinion { place, hint });
    };
    Ok((Place { jobs: row.get(3), workers: row.get(4), oid: row.get(0) }, row.get(1)))
}

/// What a table lacks.
async fn columns(client: &Object, table: &str, wanted: &[(&str, &str)]) -> Result<Vec<String>, AttachError> {
    // a type's name without its schema, whatever the search path is
    let sql = "select a.attname::text, case when t.typtype = 'e' then t.typname::text else format_type(t.oid, null) end
                 from pg_attribute a join pg_type t on t.oid = a.atttypid
                where a.attrelid = to_regclass($1::text) and a.attnum > 0 and not a.attisdropped";
    let rows = query(client, sql, &[&table]).await?;
    if rows.is_empty() {
        return Ok(vec![format!("there is no table {table}")]);
    }
    let of = |name: &str| rows.iter().find(|r| r.get::<_, &str>(0) == name).map(|r| r.get::<_, &str>(1));
    let missing = wanted.iter().filter_map(|(name, kind)| match of(name) {
        None => Some(format!("{table} has no column {name}")),
        Some(found) if found != *kind => Some(format!("{table}.{name} is {found} and not {kind}")),
        Some(_) => None,
    });
    Ok(missing.collect())
}

/// What the role lacks. The functions run as it, whoever causes a transition.
async fn rights(client: &Object, place: &Place, schema: &str) -> Result<Vec<String>, AttachError> {
    let sql = "select s.need from (values
        (has_schema_privilege($3::text, 'usage'), format('USAGE on schema %I', $3::text)),
        (has_table_privilege($1::text, 'trigger'), format('TRIGGER on %s', $1::text)),
        (has_table_privilege($1::text, 'select'), format('SELECT on %s', $1::text)),
        (has_table_privilege($2::text, 'select'), format('SELECT on %s', $2::text)),
        (to_regnamespace('minium') is not null or has_database_privilege(current_database(), 'create'),
         format('CREATE on database %I', current_database())),
        ((select pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'minium'),
         format('to be %s, who owns schema minium',
                (select n.nspowner::regrole from pg_namespace n where n.nspname = 'minium')))
      ) as s (granted, need) where not s.granted";
    let rows = query(client, sql, &[&place.jobs, &place.workers, &schema]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Who owns what should be otherwise. The functions read Minion's tables as whoever owns them, and the owner of a table can
/// put a view or a policy there whose functions then run with these rights.
async fn warnings(client: &Object, place: &Place) -> Result<Vec<String>, AttachError> {
    let sql = "select f.rolname::text, f.rolsuper and not o.rolsuper, o.rolname::text
                 from pg_class c join pg_roles o on o.oid = c.relowner,
                      pg_roles f
                where c.oid = $1::oid
                  and f.oid = coalesce((select min(p.proowner::bigint)::oid from pg_trigger t join pg_proc p on p.oid = t.tgfoid
                                         where t.tgrelid = c.oid and t.tgname = any ($2::text[])),
                                       current_user::regrole::oid)";
    let row = one(client, sql, &[&place.oid, &TRIGGERS.as_slice()]).await?;
    let (functions, above, tables): (&str, bool, &str) = (row.get(0), row.get(1), row.get(2));
    let mut warnings = Vec::new();
    if above {
        warnings.push(format!(
            "the functions run as the superuser {functions}, and {tables}, who owns Minion's tables, is none and could use \
             that: attach as a role that has only the rights it needs"
        ));
    }
    if tables == "minium" {
        warnings.push(
            "Minion's role has the name of our schema: its next migration would make tables there".into(),
        );
    }
    Ok(warnings)
}

/// Of Minion's schema, if whoever looks may know.
async fn minion_version(client: &Object, schema: &str) -> Result<Option<i64>, AttachError> {
    let sql = "select format('%I.mojo_migrations', $1::text)
                where has_table_privilege(to_regclass(format('%I.mojo_migrations', $1::text)), 'select')";
    let Some(table) = query(client, sql, &[&schema]).await?.first().map(|row| row.get::<_, String>(0)) else {
        return Ok(None);
    };
    let sql = format!("select version::bigint from {table} where name = 'minion'");
    Ok(query(client, &sql, &[]).await?.first().map(|row| row.get(0)))
}

/// What is attached, and what is wrong with it.
async fn attached(client: &Object, place: &Place) -> Result<Option<Attached>, AttachError> {
    if !one(client, "select to_regclass('minium.attached') is not null", &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = "select a.source, a.version, a.since, a.jobs::oid,
                      coalesce((select format('%I.%I', n.nspname, c.relname) from pg_class c
                                  join pg_namespace n on n.oid = c.relnamespace where c.oid = a.jobs), '')
                 from minium.attached a where a.system = 'minion'";
    let rows = query(client, sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (version, oid): (i32, u32) = (row.get(1), row.get(3));
    let mut jobs: String = row.get(4);
    let mut faults = Vec::new();
    if jobs.is_empty() {
        // the table that it was is gone, with its triggers; the one of the same name is another
        jobs = place.jobs.clone();
        faults.push("Minion's table was dropped and made anew".to_owned());
    }
    if version != VERSION {
        faults.push(format!("the functions are of version {version}, this program has {VERSION}"));
    }
    if oid == place.oid {
        faults.extend(triggers(client, place).await?);
    }
    Ok(Some(Attached { jobs, source: row.get(0), version, since: row.get(2), faults }))
}

/// What is wrong with the triggers and their functions.
async fn triggers(client: &Object, place: &Place) -> Result<Vec<String>, AttachError> {
    let sql = "select t.tgname::text, t.tgenabled in ('O', 'A'), p.proowner::regrole::text,
                      has_table_privilege(p.proowner, $2::text, 'select') and has_table_privilege(p.proowner, t.tgrelid, 'select')
                 from pg_trigger t join pg_proc p on p.oid = t.tgfoid
                where t.tgrelid = $1::oid and t.tgname = any ($3::text[])";
    let rows = query(client, sql, &[&place.oid, &place.workers, &TRIGGERS.as_slice()]).await?;
    let mut faults = Vec::new();
    for name in TRIGGERS {
        match rows.iter().find(|row| row.get::<_, &str>(0) == name) {
            None => faults.push(format!("the trigger {name} is missing")),
            Some(row) if !row.get::<_, bool>(1) => faults.push(format!("the trigger {name} is disabled")),
            Some(row) if !row.get::<_, bool>(3) => {
                let owner: &str = row.get(2);
                faults
                    .push(format!("{owner}, who owns the function of {name}, may not read Minion's tables"));
            }
            Some(_) => {}
        }
    }
    Ok(faults)
}
