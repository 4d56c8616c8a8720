-- Durable channels: messages that clients publish are kept in the journal, beside the events of tasks.

-- Ids that publishers gave their messages: the same id on the same topic is the same message until `until`.
create table message_id (
  topic text not null,
  id    text not null,
  seq   integer not null,                         -- the first message's offset
  until integer not null,
  primary key (topic, id)
) without rowid;
create index message_id_until on message_id (until);

-- Retention by channel. A channel is a prefix of topics; the nearest one governs an entry, and the empty prefix is that
-- of all others. What is kept of a channel has no holes: everything that belongs to it from `first` on.
create table journal_channel (
  prefix text primary key,
  first  integer not null,
  active integer not null default 1               -- one that is configured no more still says what may be missing
) without rowid;
insert into journal_channel (prefix, first) values ('', coalesce((select min(seq) from entry), 1));

-- What is kept, counted: so many entries of a channel between two offsets, which are no further apart than a few
-- thousand. Counting looks at each entry once, and letting go looks at the oldest span alone.
create table journal_span (
  prefix text not null,
  first  integer not null,
  last   integer not null,
  count  integer not null,
  bytes  integer not null,
  primary key (prefix, first)
) without rowid;

-- How far the entries are counted.
create table journal_count (
  one        integer primary key check (one = 1),
  counted_to integer not null
);
insert into journal_count (one, counted_to) values (1, coalesce((select min(seq) from entry), 1) - 1);
