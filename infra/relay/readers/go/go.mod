module mta-sts-reader

go 1.19
