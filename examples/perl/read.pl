#!/usr/bin/env perl
# Reads task events and resumes by position. Needs: Mojolicious (Debian: libmojolicious-perl)
#
#     read.pl http://127.0.0.1:3000 [TOPIC] [--after POSITION] [--count N]
#
# Each event goes to stdout as one line of JSON. A program that must not miss anything over its own restarts keeps
# $after where it keeps the work it did, and writes both at once.
use Mojo::Base -strict, -signatures;
use Getopt::Long qw(GetOptions);
use Mojo::IOLoop;
use Mojo::JSON qw(decode_json);
use Mojo::UserAgent;

my ($after, $left, $failures, @last) = ('earliest', 9**15, 0);
GetOptions('after=s' => \$after, 'count=i' => \$left) or exit 2;
my $base  = shift // die "usage: $0 URL [TOPIC] [--after POSITION] [--count N]\n";
my $topic = shift // 'task';
exit 0 if $left <= 0;
(my $url = $base =~ s{/+$}{}r . "/sub/$topic") =~ s/^http/ws/;
$| = 1;

my $ua = Mojo::UserAgent->new(inactivity_timeout => 0, connect_timeout => 10);

sub finish ($status, $why = undef) {
  warn "$why\n" if defined $why;
  exit $status;
}

sub come_back ($why) {
  warn "$why, coming back\n";
  my $pause = 0.1 * 2**($failures < 7 ? $failures : 7);
  $failures++;
  Mojo::IOLoop->timer($pause * (0.5 + rand 0.5) => \&connect_once);
}

sub connect_once (@) {
  $ua->websocket(
    "$url?after=$after" => sub ($ua, $tx) {
      if (!$tx->is_websocket) {
        my $res  = $tx->res;
        my $code = $res->code // 0;
        # 410: the position is gone, begin anew or think
        finish(1, "refused with $code: " . $res->body) if $code >= 400 && $code < 500 && $code != 429;
        return come_back($code ? "refused with $code" : 'no connection');
      }
      $tx->max_websocket_size(16 << 20);
      $tx->on(
        text => sub ($tx, $bytes) {
          return if $left <= 0;
          my $event = decode_json($bytes);
          my @got   = ($event->{epoch} + 0, $event->{sequence} + 0);
          # seen already?
          return if @last && ($got[0] <=> $last[0] || $got[1] <=> $last[1]) <= 0;
          ($after, $failures, @last) = (join(':', @got), 0, @got);
          say $bytes =~ tr/\r\n/  /r;
          if (--$left <= 0) { $tx->on(finish => sub { finish(0) }); $tx->finish(1000) }
        }
      );
      $tx->on(
        finish => sub ($tx, $code, $reason = '') {
          $code //= 1006;
          return                                                          if $left <= 0;
          finish(0)                                                       if $code == 1000;
          finish(1, "closed with $code: " . ($reason // ''))              if $code =~ /^(100[23789]|4[5-9]..)$/;
          come_back("closed with $code");
        }
      );
    }
  );
}

connect_once();
Mojo::IOLoop->start;
