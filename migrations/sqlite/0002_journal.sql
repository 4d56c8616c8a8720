-- The journal's numbering on SQLite. There is one writer, so entries are committed in the order of `seq`; AUTOINCREMENT
-- never gives a number twice, and what is rolled back gives its numbers back: `seq` is dense, and is the offset.

-- The generation of the numbering. A database in memory gets a new one at each start, since its numbers begin anew.
create table journal_cursor (
  one   integer primary key check (one = 1),
  epoch integer not null
);
insert into journal_cursor (one, epoch) values (1, 1);

-- One job's history, and a rare task's, by index. Replay of everything walks the table, which is in that order.
create index entry_topic on entry (topic, seq);

-- For whoever reads the journal by SQL; an interface.
create view journal as
  select (select epoch from journal_cursor) as epoch, seq as sequence, topic, type, at, data from entry;
