#!/usr/bin/env perl
# Publishes messages over one WebSocket. Needs: Mojolicious (Debian: libmojolicious-perl)
#
#     write.pl http://127.0.0.1:3000 [TOPIC] [--count N]
#
# Nothing is acknowledged in plain mode, but what the server refuses it says: one text frame with the key `problem`.
use Mojo::Base -strict, -signatures;
use Getopt::Long qw(GetOptions);
use Mojo::IOLoop;
use Mojo::JSON qw(encode_json);
use Mojo::UserAgent;

my $count = 1;
GetOptions('count=i' => \$count) or exit 2;
my $base  = shift // die "usage: $0 URL [TOPIC] [--count N]\n";
my $topic = shift // 'example/perl';
(my $url = $base =~ s{/+$}{}r . "/pub/$topic") =~ s/^http/ws/;

my ($refused, $ended) = (0, 1006);
my $ua = Mojo::UserAgent->new(inactivity_timeout => 0);
$ua->websocket(
  $url => sub ($ua, $tx) {
    if (!$tx->is_websocket) {
      warn 'refused with ' . ($tx->res->code // 'no connection') . ': ' . $tx->res->body . "\n";
      return Mojo::IOLoop->stop;
    }
    $tx->on(
      json => sub ($tx, $frame) {
        $refused++;
        warn "$frame->{problem}{code}: $frame->{problem}{detail}\n";
      }
    );
    $tx->on(finish => sub ($tx, $code, @) { $ended = $code // 1006; Mojo::IOLoop->stop });
    # Each message is handed to the socket before the next one is made, so that any number fits into the memory.
    my ($n, $next) = (0);
    $next = sub (@) {
      return $tx->send({json => {n => $n, from => 'perl'}}, $next) if $n++ < $count;
      # The server reads in order: its answer to the Close comes behind all refusals.
      $tx->finish(1000);
    };
    $next->();
  }
);
Mojo::IOLoop->start;
warn "closed with $ended\n" if $ended != 1000;
exit($refused || $ended != 1000 ? 1 : 0);
