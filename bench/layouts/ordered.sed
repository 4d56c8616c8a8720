# What a real statement becomes on the table of ordered.sql. For `sed -E`.
s/\bminium\.job\b/ordered.job/g
s/\bminium\.snapshot\(j\)/ordered.snapshot(j)/
