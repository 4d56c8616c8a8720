//! Masks of arguments: what `minium.args_shown` applies at each enqueue, whoever enqueues.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;
use crate::mask;
use crate::store::ArgsMask;
use tokio_postgres::types::ToSql;

/// Index: the key of mask. Locks: the rows that change, in the order of their tasks, so that nodes which start together
/// wait for each other and not in a ring.
const PUT: &str = "
insert into minium.mask as m (task, paths)
select u.task, u.paths::jsonb from unnest($1::text[], $2::text[]) as u (task, paths) order by u.task collate \"C\"
    on conflict (task) do update set paths = excluded.paths where m.paths <> excluded.paths";

impl PgStore {
    pub(super) async fn put_args_masks(&self, masks: &[ArgsMask]) -> Result<(), QueueError> {
        let masks = mask::one_each(masks);
        let (tasks, paths): (Vec<&str>, Vec<String>) = masks.into_iter().unzip();
        let params: [&(dyn ToSql + Sync); 2] = [&tasks, &paths];
        let params = &params;
        let put = |client: Session| async move { client.execute(PUT, params).await };
        self.connections.run("put masks in force", put).await.map(drop)
    }
}
