#!/usr/bin/env perl
# A long-lived command: one process takes one job after the other. Needs nothing but Perl.
#
#     minium worker --ndjson --task example=./lasting.pl
#
# A job's arguments are [{"steps": 3}]; each step is told, and {"fail": "why"} ends it badly.
use strict;
use warnings;
use IO::Select;
use JSON::PP;

my $json = JSON::PP->new->utf8;
my $in   = IO::Select->new(\*STDIN);
$| = 1;

sub say_word { print $json->encode({@_}), "\n" }

# A line, or undef at the end of input. By sysread: what a buffer has read ahead, select would not see.
my $read = '';
sub line {
  while (index($read, "\n") < 0) {
    sysread STDIN, $read, 65536, length $read or return undef;
  }
  (my $line, $read) = split /\n/, $read, 2;
  return $line;
}

# While there is a job, only a word that ends it can come.
sub is_cancelled { my ($seconds) = @_; return length $read || $in->can_read($seconds) }

sub run {
  my ($job) = @_;
  my $id    = $job->{id};
  my $args  = $job->{args}[0] // {};
  my $steps = $args->{steps}  // 1;
  for my $step (1 .. $steps) {
    return say_word(failed => {id => $id, error => 'cancelled'}) if is_cancelled(0.01);    # the work
    say_word(progress => {id => $id, percent => 100 * $step / $steps, text => "step $step"});
  }
  say_word(note => {id => $id, notes => {by => 'perl'}});
  my $why = $args->{fail};
  return say_word(failed => {id => $id, error => $why, retry => JSON::PP::false}) if defined $why;
  say_word(finished => {id => $id, result => {steps => $steps}});
}

say_word(ready => {});
while (defined(my $line = line())) {
  my $word = $json->decode($line);
  run($word->{job}) if $word->{job};
}
