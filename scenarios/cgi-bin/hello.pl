#!/usr/bin/perl
# A CGI script in Perl. Variables of the request are in %ENV.

use strict;
use warnings;

my $visitor = $ENV{REMOTE_ADDR} // 'an unknown visitor';

print "Content-Type: text/plain; charset=utf-8\n\n";
print "Hello from Perl $^V to $visitor.\n";
