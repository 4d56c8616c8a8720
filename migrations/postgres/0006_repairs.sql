-- Repairs: when somebody last looked after the queue.

-- When a round of upkeep was last begun or ended. When there was none for long, nobody was there to extend leases
-- with, and they have their grace anew, as after a restart. Never: the first round of this program counts as such.
alter table minium.server add column tended timestamptz not null default '-infinity';
