#!/usr/bin/env perl
# What an attached Minion pays: the same work by the same Minion with our triggers and without, in pairs.
#
#     scripts/with-postgres --fsync bench/attach.pl [--jobs 2000] [--runs 7] [--binary target/release/minium] --out FILE
#
# One process, one connection, no forks, so that nothing but the statements is measured: enqueue one by one, then dequeue
# and finish one by one, then polls of an empty queue. Each run does so attached and detached, in turns of which comes
# first; a figure is the median over the runs, a ratio the median of the pairs' ratios. CPU is that of Minion's session of
# PostgreSQL. Nobody relays meanwhile. Progress on stderr.
use v5.16;
use strict;
use warnings;
use Getopt::Long qw(GetOptions);
use Minion;
use Mojo::File qw(path);
use Mojo::Pg;
use Mojo::JSON qw(encode_json);
use POSIX qw(strftime uname);
use Time::HiRes qw(time);

my ($jobs, $runs, $binary, $out) = (2000, 7, 'target/release/minium', 'attach.json');
GetOptions('jobs=i' => \$jobs, 'runs=i' => \$runs, 'binary=s' => \$binary, 'out=s' => \$out) or die "see the head of this file\n";
my $url = $ENV{MINIUM_TEST_POSTGRES} // die "run it by scripts/with-postgres --fsync\n";
my ($host) = $url =~ /host=([^&]+)/ or die "$url names no socket\n";
my ($admin_role) = $url =~ /user=([^&]+)/;
my $name = "attach_$$";
# about 60 bytes, and about 1 KiB
my %args = (small => [{customer => 4711, invoice => 'INV-2026-000815', again => 1}], large => [map { "x" x 100 } 1 .. 10]);

(my $socket = $host) =~ s!/!%2F!g;
my $admin = Mojo::Pg->new("postgresql://$admin_role\@$socket/postgres");
$admin->db->query($_) for 'drop role if exists minion', 'create role minion login', "create database $name";
my $inside = Mojo::Pg->new("postgresql://$admin_role\@$socket/$name");
$inside->db->query('grant create on schema public to minion');
my $minion = Minion->new(Pg => "postgresql://minion\@$socket/$name");
$minion->add_task(work => sub { });
$minion->stats;

sub attach {
    my $database = "postgres:///$name?host=$host&user=$admin_role";
    open my $told, '-|', $binary, qw(attach minion --json --database), $database, @_ or die "$binary: $!\n";
    my $words = join '', <$told>;
    close $told or die "attach has failed: $words\n";
}
sub cpu_us { my $pid = shift; (split ' ', path("/proc/$pid/schedstat")->slurp)[0] / 1000 }

# Wall time, PostgreSQL's CPU and WAL for each of `$n` calls.
sub measure {
    my ($n, $call) = @_;
    my $pid = $minion->backend->pg->db->query('select pg_backend_pid()')->array->[0];
    my $lsn = $inside->db->query('select pg_current_wal_lsn()')->array->[0];
    my ($cpu, $start) = (cpu_us($pid), time);
    $call->() for 1 .. $n;
    my ($wall, $used) = (time - $start, cpu_us($pid) - $cpu);
    my $wal = $inside->db->query('select pg_current_wal_lsn() - ?::pg_lsn', $lsn)->array->[0];
    return {wall_us => $wall * 1e6 / $n, cpu_us => $used / $n, wal_bytes => $wal / $n};
}

sub round_of {
    my ($attached, $args) = @_;
    attach($attached ? () : '--detach');
    if ($attached) {
        # as a node leaves it after its first days, and while events flow: today has a partition, and nobody asks to be woken
        $inside->db->query(q{select minium.journal_days(2, now(), now() - interval '1 day')});
        $inside->db->query('update minium.wake set armed = false');
    }
    $minion->reset({all => 1});
    $inside->db->query($_) for 'vacuum analyze', 'checkpoint';
    my $worker = $minion->worker->register;
    # sessions plan each statement once
    for (1 .. 20) { $minion->enqueue(work => $args); $worker->dequeue(0)->finish }
    my %took;
    $took{enqueue} = measure($jobs, sub { $minion->enqueue(work => $args) });
    $took{dequeue_finish} = measure($jobs, sub { $worker->dequeue(0)->finish({ok => 1}) });
    $took{idle_poll} = measure($jobs / 2, sub { $minion->backend->_try($worker->id, {}) });
    $worker->unregister;
    return \%took;
}

sub median { my @s = sort { $a <=> $b } @_; ($s[$#s / 2] + $s[@s / 2]) / 2 }

my @load = (split ' ', path('/proc/loadavg')->slurp)[0];
my %figures;
for my $size (sort keys %args) {
    my %seen;
    for my $run (1 .. $runs) {
        my @order = $run % 2 ? (0, 1) : (1, 0);
        my %of = map { $_ => round_of($_, $args{$size}) } @order;
        push @{$seen{detached}}, $of{0};
        push @{$seen{attached}}, $of{1};
        say STDERR sprintf '%s run %d of %d: dequeue and finish %.0f us, attached %.0f us', $size, $run, $runs,
            $of{0}{dequeue_finish}{wall_us}, $of{1}{dequeue_finish}{wall_us};
    }
    for my $phase (qw(enqueue dequeue_finish idle_poll)) {
        for my $what (qw(wall_us cpu_us wal_bytes)) {
            my @pairs = map { [$seen{detached}[$_]{$phase}{$what}, $seen{attached}[$_]{$phase}{$what}] } 0 .. $runs - 1;
            my $ratio = median(map { $_->[0] > 0 ? $_->[1] / $_->[0] : 1 } @pairs);
            $figures{$size}{$phase}{$what} = {
                detached => 0 + sprintf('%.1f', median(map { $_->[0] } @pairs)),
                attached => 0 + sprintf('%.1f', median(map { $_->[1] } @pairs)),
                more     => 0 + sprintf('%.1f', median(map { $_->[1] - $_->[0] } @pairs)),
                ratio    => 0 + sprintf('%.2f', $ratio),
            };
        }
    }
}
push @load, (split ' ', path('/proc/loadavg')->slurp)[0];
chomp(my $commit = `git rev-parse --short HEAD`);
open my $file, '>', $out or die "$out: $!\n";
say $file encode_json({
    bench => 'attach', at => strftime('%Y-%m-%dT%H:%M:%SZ', gmtime), commit => $commit, jobs => $jobs, runs => $runs,
    machine => {cores => 0 + `nproc`, kernel => (uname)[2], load_before => 0 + $load[0], load_after => 0 + $load[1]},
    minion => Minion->VERSION, postgres => $inside->db->query('show server_version')->array->[0], per_call => \%figures,
});
close $file;
undef $minion;
$_->db->disconnect for $inside;
$admin->db->query("drop database $name with (force)");
$admin->db->query('drop role minion');
