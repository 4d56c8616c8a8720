# Drives a real Minion, or is a worker of it.
#
# `minion.pl URL` reads orders as lines of JSON on stdin and answers each with one line: {"ok": …} or {"error": "…"}.
# `minion.pl URL work` runs a worker that forks for each job, until it is told to end by SIGTERM.
use v5.16;
use strict;
use warnings;
use Minion;
use Mojo::JSON qw(decode_json encode_json);

$| = 1;
my ($url, $work) = @ARGV;
my $minion = Minion->new(Pg => $url);

# an automatic retry is due at once
$minion->backoff(sub { 0 });

$minion->add_task(add => sub { my ($job, @n) = @_; my $sum = 0; $sum += $_ for @n; $job->finish({sum => $sum}) });
$minion->add_task(quiet => sub { });
$minion->add_task(noted => sub { my $job = shift; $job->note(step => $_) for 1 .. 3; $job->finish('noted') });
$minion->add_task(broken => sub { die "it broke\n" });
$minion->add_task(crashed => sub { require POSIX; POSIX::_exit(7) });
# what is only driven by orders
$minion->add_task($_ => sub { }) for qw(steered secret), "My T\x{e4}sk", 'a/b', 'a//b', '/', '..', '~', "n\x{2603}/x", '', 'x' x 300;

if ($work) {
    my $worker = $minion->worker;
    $worker->status->{$_->[0]} = $_->[1] for [jobs => 4], [dequeue_timeout => 1], [command_interval => 1];
    $worker->run;
    exit 0;
}

my (%job, $worker);
sub job { my $id = shift; $job{$id} // $minion->job($id) // die "there is no job $id\n" }

my %do = (
    enqueue    => sub { my $o = shift; $minion->enqueue($o->{task} => $o->{args} // [] => $o->{options} // {}) },
    register   => sub { $worker = $minion->worker->register; $worker->id },
    unregister => sub { $worker->unregister; undef $worker },
    dequeue    => sub {
        my $o = shift;
        my $job = $worker->dequeue(0 => $o->{options} // {}) or return undef;
        $job{$job->id} = $job;
        $job->id;
    },
    note    => sub { my $o = shift; job($o->{id})->note(%{$o->{notes}}) },
    finish  => sub { my $o = shift; job($o->{id})->finish($o->{result}) },
    fail    => sub { my $o = shift; job($o->{id})->fail($o->{result}) },
    retry   => sub { my $o = shift; $minion->job($o->{id})->retry($o->{options} // {}) },
    remove  => sub { my $o = shift; $minion->job($o->{id})->remove },
    repair  => sub { my $o = shift; $minion->$_($o->{$_}) for grep { /_after$/ } keys %$o; $minion->repair; 1 },
    perform => sub { $minion->perform_jobs; 1 },
    stats   => sub { $minion->stats },
    reset   => sub { $minion->reset({all => 1}); 1 },
    # takes all of Minion's tables away again
    down    => sub { $minion->backend->pg->migrations->migrate(0); 1 },
);

while (my $line = <STDIN>) {
    my $order = decode_json $line;
    my $answer = eval { {ok => $do{$order->{do}}->($order)} } // {error => "$@"};
    print encode_json($answer), "\n";
}
