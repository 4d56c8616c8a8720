#!/usr/bin/env perl
# Takes jobs over one WebSocket. Needs: Mojolicious (Debian: libmojolicious-perl)
#
#     worker.pl http://127.0.0.1:3000 TASK [--credit N] [--count N]
#
# A job's arguments are {"steps": 3}; each step is noted, and {"fail": "why"} ends it badly. The channel TASK must be
# durable on the node. MINIUM_TOKEN, if set, shows who works.
use Mojo::Base -strict, -signatures;
use Getopt::Long qw(GetOptions);
use Mojo::IOLoop;
use Mojo::JSON qw(decode_json encode_json false);
use Mojo::UserAgent;

my ($credit, $left, $failures) = (2, -1, 0);
GetOptions('credit=i' => \$credit, 'count=i' => \$left) or exit 2;
my ($base, $task) = @ARGV;
die "usage: $0 URL TASK [--credit N] [--count N]\n" unless defined $task;
(my $url = $base =~ s{/+$}{}r . '/ws') =~ s/^http/ws/;
my %headers = $ENV{MINIUM_TOKEN} ? (Authorization => "Bearer $ENV{MINIUM_TOKEN}") : ();
my $ua      = Mojo::UserAgent->new(inactivity_timeout => 0, connect_timeout => 10);
my (%unsaid, %running);    # words until the node has answered them, by lease; timers by job
$| = 1;

my $link;    # the socket that is open, or was: who works goes on over a cut, and says the rest over the next
sub speak ($frame) { $link->send({text => encode_json $frame}) if $link && !$link->is_finished }

# Works on one job, step by step; says how it ended.
sub work ($job, $lease, $step = 1) {
  my %about = (job => $job->{id}, lease => $lease);
  my $given = ref $job->{args} eq 'HASH' ? $job->{args} : {};    # without arguments it is []
  my $steps = $given->{steps} // 1;
  $running{$job->{id}} = Mojo::IOLoop->timer(0.05 => sub {
    my $progress = {percent => 100 * $step / $steps, text => "step $step"};
    speak({op => 'note', %about, notes => {by => 'perl'}, progress => $progress});
    speak({op => 'extend', %about});    # whoever works long does so at a third of the lease
    return work($job, $lease, $step + 1) if $step < $steps;
    my $why = $given->{fail};
    $unsaid{$lease} = {op => 'ack', %about, result => {steps => $steps}, ref => $lease};
    $unsaid{$lease} = {op => 'nack', %about, error => $why, retry => false, ref => $lease} if defined $why;
    speak($unsaid{$lease});
  });
}

sub heard ($tx, $frame) {
  my $op = $frame->{op};
  return work($frame->{job}, $frame->{lease}) if $op eq 'job';
  return $tx->finish(1000) if $op eq 'drain';
  if ($op =~ /^cancel/) {
    my $timer = delete $running{$frame->{job}} // return;
    Mojo::IOLoop->remove($timer);
    return speak({op => 'pull', topic => $task});
  }
  return if $frame->{problem} && $frame->{problem}{retryable};
  my $word = delete $unsaid{$frame->{ref} // ''} // return;    # done, or somebody else has the job
  say encode_json {job => $word->{job}, said => $word->{op}, answer => $op};
  delete $running{$word->{job}};
  return $tx->finish(1000) if --$left == 0;
  speak({op => 'pull', topic => $task});
}

sub come_back ($why) {
  return Mojo::IOLoop->stop if $left == 0;
  warn "$why, coming back\n";
  my $pause = 0.1 * 2**($failures < 7 ? $failures++ : 7);
  Mojo::IOLoop->timer($pause * (0.5 + rand 0.5) => \&connect_once);
}

sub connect_once (@) {
  $ua->websocket($url => \%headers => ['minium.v1'] => sub ($ua, $tx) {
    return come_back('no connection') unless $tx->is_websocket;
    ($failures, $link) = (0, $tx);
    $tx->max_websocket_size(16 << 20);
    $tx->on(text => sub ($tx, $bytes) { heard($tx, decode_json $bytes) });
    $tx->on(finish => sub ($tx, $code, $reason = '') { come_back('closed with ' . ($code // 1006)) });
    speak($_) for values %unsaid;    # the same word again is harmless
    speak({op => 'pull', topic => $task, credit => $credit});
  });
}

connect_once();
Mojo::IOLoop->start;
