# Drives WebSockets of Perl's Mojolicious by lines of JSON; the lines are those of sockets.py.
use v5.16;
use strict;
use warnings;
use Mojo::UserAgent;
use Mojo::IOLoop;
use Mojo::IOLoop::Stream;
use Mojo::JSON qw(decode_json encode_json);
use Mojo::Util qw(b64_decode b64_encode);

$| = 1;
my $agent = Mojo::UserAgent->new(inactivity_timeout => 0, connect_timeout => 60, max_redirects => 0);
my %session;

sub tell_event {
    my ($name, $event, %more) = @_;
    print encode_json({session => $name, event => $event, %more}), "\n";
}

sub open_session {
    my ($name, $order) = @_;
    my @arguments = ($order->{url}, $order->{headers} // {});
    push @arguments, $order->{subprotocols} if $order->{subprotocols};
    $agent->websocket(@arguments => sub {
        my (undef, $tx) = @_;
        unless ($tx->is_websocket) {
            my $status = $tx->res->code // 0;
            my $body = $tx->res->body // '';
            utf8::decode($body);
            return tell_event($name, 'refused', status => $status + 0, body => $body);
        }
        $session{$name} = $tx;
        $tx->max_websocket_size(1 << 30);
        my $closed = 0;
        # `frame` rather than `message`: only it tells text from binary, joined or not
        my ($op, $parts) = (0, '');
        $tx->on(frame => sub {
            my (undef, $frame) = @_;
            my ($fin, $opcode, $payload) = @$frame[0, 4, 5];
            return tell_event($name, 'pong') if $opcode == 10;
            return if $opcode > 2;
            ($op, $parts) = ($opcode, '') if $opcode;
            $parts .= $payload;
            return unless $fin;
            if ($op == 2) {
                return tell_event($name, 'message', base64 => b64_encode($parts, ''));
            }
            my $text = $parts;
            utf8::decode($text);
            tell_event($name, 'message', text => $text);
        });
        $tx->on(finish => sub {
            my (undef, $code, $reason) = @_;
            delete $session{$name};
            tell_event($name, 'closed', code => ($code // 1006) + 0, reason => $reason) unless $closed++;
        });
        tell_event($name, 'open', subprotocol => $tx->protocol);
    });
}

sub obey {
    my ($order) = @_;
    my $name = $order->{session};
    return open_session($name, $order) if $order->{do} eq 'open';
    my $tx = $session{$name} or return;
    if ($order->{do} eq 'send') {
        $tx->send(exists $order->{text} ? {text => encode_utf8($order->{text})} : {binary => b64_decode($order->{base64})});
    }
    elsif ($order->{do} eq 'fragments') {
        my @parts = map { encode_utf8($_) } @{$order->{parts}};
        for my $i (0 .. $#parts) {
            $tx->send([$i == $#parts ? 1 : 0, 0, 0, 0, $i ? 0 : 1, $parts[$i]]);
        }
    }
    elsif ($order->{do} eq 'ping') { $tx->send([1, 0, 0, 0, 9, 'are you there']) }
    elsif ($order->{do} eq 'close') { $tx->finish($order->{code}) }
    else { die "unknown order $order->{do}" }
}

sub encode_utf8 { my $text = shift; utf8::encode($text); $text }

my $buffer = '';
my $stdin = Mojo::IOLoop::Stream->new(\*STDIN)->timeout(0);
$stdin->on(read => sub {
    my (undef, $bytes) = @_;
    $buffer .= $bytes;
    obey(decode_json($1)) while $buffer =~ s/^([^\n]*)\n//;
});
$stdin->on(close => sub { Mojo::IOLoop->stop });
$stdin->start;
Mojo::IOLoop->start;
