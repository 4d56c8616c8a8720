#!/usr/bin/env perl
# Runs a task of a Minion, unchanged, as a job of Minium's. Needs: the application itself (Mojolicious, Minion)
#
#     minium worker --database URL --task 'send_mail=./task.pl ./app.pl'
#
# The application is loaded as its own commands load it, and the task is called with a job object that has what tasks use:
# id, task, args, retries, info, app, minion, note, finish, fail. What needs Minion's database (parents, retry, remove) is not there.
use Mojo::Base -strict, -signatures;
use Mojo::JSON qw(decode_json encode_json);
use Mojo::Server;

package Minium::Job {
  use Mojo::Base -base, -signatures;
  use Mojo::JSON qw(encode_json);

  has [qw(app args id retries task)];
  has 'ended';

  sub minion ($self) { $self->app->minion }
  sub info ($self)   { return {map { $_ => $self->$_ } qw(args id retries task)} }

  # A line of the result would be no note: it goes to stderr
  sub note ($self, %notes) {
    print STDERR "::note $_=" . encode_json($notes{$_}) . "\n" for sort keys %notes;
    return 1;
  }

  # The first word counts, as in Minion
  sub finish ($self, $result = undef) { $self->ended({result => $result}) unless $self->ended; return 1 }
  sub fail ($self, $why = 'Unknown error') { $self->ended({error => $why}) unless $self->ended; return 1 }
}

my $app  = Mojo::Server->new->load_app(shift // die "usage: $0 APP\n");
my $name = $ENV{MINIUM_TASK} // die "to be run by minium worker\n";
my $task = $app->minion->tasks->{$name} // die "the application has no task $name\n";
my $args = decode_json(do { local $/; <STDIN> });
$args = [$args] if ref $args ne 'ARRAY';
my $job = Minium::Job->new(
  app     => $app,
  args    => $args,
  id      => $ENV{MINIUM_JOB_ID},
  retries => $ENV{MINIUM_ATTEMPT} - 1,
  task    => $name
);

# what tasks print is for people, not the result
open my $result, '>&', \*STDOUT or die "stdout: $!\n";
open STDOUT, '>&', \*STDERR or die "stderr: $!\n";
if (ref $task || !$task->can('run')) { $job->$task(@$args) }
else                                 { die "$name is a class of its own: call its code from a command\n" }

my $ended = $job->ended // {result => undef};
if (exists $ended->{error}) {
  print STDERR ref $ended->{error} ? encode_json($ended->{error}) : $ended->{error}, "\n";
  exit 1;
}
print {$result} encode_json($ended->{result});
