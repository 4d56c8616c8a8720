#!/usr/bin/env perl
# Minion (Debian's libminion-perl) under the queue bench, by the line protocol of bench/src/queue/driver.rs.
#
# Four processes, each with a loop of its own over dequeue and finish: Minion's own worker forks once more for each job,
# which is the price of isolation, not of the queue. There is no bulk enqueue.
use strict;
use warnings;
use IO::Handle;
use Mojo::JSON qw(decode_json encode_json);
use Mojo::Util qw(url_escape);
use Minion;
use POSIX ();
use Time::HiRes qw(time sleep);

use constant PROCESSES => 4;

my ($url, @working, $handled);
STDOUT->autoflush(1);

while (my $line = <STDIN>) {
  my $command = decode_json($line);
  last if $command->{do} eq 'end';
  my %do = (open => \&prepare, bulk => \&bulk, enqueue => \&enqueue, work => \&work, rest => \&rest, pickup => \&pickup);
  my $answer = eval { ($do{$command->{do}} // die "there is no command $command->{do}\n")->($command) };
  next if $answer && $answer->{told};
  say_line($answer ? {ok => Mojo::JSON->true, %$answer} : {error => "$@"});
}

sub say_line { print encode_json(shift), "\n" }

# each process has connections of its own; a worker takes only tasks that it knows
sub minion { Minion->new(Pg => $url)->add_task(noop => sub { }) }

sub filler { 'x' x ($_[0] > 8 ? $_[0] - 8 : 0) }

sub prepare {
  my $c = shift;
  my $secret = defined $c->{password} ? ':' . url_escape($c->{password}, '^A-Za-z0-9') : '';
  my ($user, $host) = map { url_escape($_, '^A-Za-z0-9') } $c->{user}, $c->{host};
  $url = "postgresql://$user$secret\@$host:$c->{port}/$c->{database}";
  # it migrates at its first connection
  minion()->backend->pg->db->query('select 1');
  return {};
}

sub bulk {
  my $c      = shift;
  my $minion = minion();
  $minion->enqueue(noop => [{p => filler($c->{bytes})}]) for 1 .. $c->{jobs};
  return {};
}

# one process for each connection
sub enqueue {
  my $c = shift;
  return bulk($c) if $c->{connections} == 1;
  my $each = int($c->{jobs} / $c->{connections});
  my @pids = map { child(sub { bulk({%$c, jobs => $each}) }) } 1 .. $c->{connections};
  waitpid($_, 0), $? && die "a process that enqueues has failed\n" for @pids;
  return {};
}

sub child {
  my $run = shift;
  my $pid = fork() // die "fork: $!\n";
  return $pid if $pid;
  eval { $run->(); 1 } or do { print STDERR $@; POSIX::_exit(1) };
  POSIX::_exit(0);
}

# begins, and tells what was handled from a process that collects it
sub work {
  my $c = shift;
  pipe(my $reads, my $writes) or die "pipe: $!\n";
  $writes->autoflush(1);
  @working = map {
    child(sub { close $reads; drain($writes) })
  } 1 .. PROCESSES;
  close $writes;
  # the answer to this command goes first
  say_line({ok => Mojo::JSON->true});
  $handled = 0;
  while (defined(my $line = <$reads>)) { say_line({handled => $handled += $line}) }
  return {told => 1};
}

sub drain {
  my $writes = shift;
  my $worker = minion()->worker->register;
  my ($count, $told) = (0, time);
  my $tell = sub { print $writes "$count\n" if $count; ($count, $told) = (0, time) };
  while (my $job = $worker->dequeue(0)) {
    $job->finish;
    $count++;
    $tell->() if time - $told > 0.01;
  }
  $tell->();
  $worker->unregister;
}

sub rest {
  waitpid($_, 0) for @working;
  @working = ();
  return {handled => $handled};
}

# a process that waits for jobs as a worker does, by LISTEN; both tell times by the same clock
sub pickup {
  my $c = shift;
  pipe(my $reads, my $writes) or die "pipe: $!\n";
  $writes->autoflush(1);
  my $pid = child(sub {
    my $worker = minion()->worker->register;
    for (1 .. $c->{jobs}) {
      my $job;
      until ($job = $worker->dequeue(5)) { }
      my $started = time;
      print $writes $job->args->[0]{n}, " $started\n";
      $job->finish;
    }
    $worker->unregister;
  });
  close $writes;
  my ($minion, $began, @called, @acked) = (minion(), time);
  for my $n (0 .. $c->{jobs} - 1) {
    my $wait = $began + $n * $c->{every_ms} / 1000 - time;
    sleep $wait if $wait > 0;
    push @called, time;
    $minion->enqueue(noop => [{p => filler($c->{bytes}), n => $n}]);
    push @acked, time;
  }
  my @started;
  while (defined(my $line = <$reads>)) { my ($n, $at) = split ' ', $line; $started[$n] = $at }
  waitpid($pid, 0);
  return {
    from_call_ms => [map { ($started[$_] - $called[$_]) * 1000 } 0 .. $#called],
    from_ack_ms  => [map { ($started[$_] - $acked[$_]) * 1000 } 0 .. $#acked],
  };
}
