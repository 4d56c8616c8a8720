-- Takes off what install.sql has made. The triggers go with their functions: to drop a trigger by itself one must own
-- Minion's table. The journal stays. Minion's readers and writers wait until the end of this transaction.
drop function if exists minium.minion_inserted() cascade;
drop function if exists minium.minion_updated() cascade;
drop function if exists minium.minion_deleted() cascade;
drop function if exists minium.minion_truncated() cascade;
drop function if exists minium.minion_time(timestamptz);
drop function if exists minium.minion_topic(text, bigint);
drop function if exists minium.minion_escaped(text);
