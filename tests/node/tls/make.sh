#!/bin/sh
# Certificates for the tests, good from 2020 to 2120 whatever the clock says: a root, a server for localhost, a client,
# and a stranger whom no root knows. Keys of tests are no secrets. Needs OpenSSL 3.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/ca.cnf" <<CONFIG
[ca]
default_ca = ours
[ours]
database = $work/index
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
[client]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:client
CONFIG
: > "$work/index"
# make NAME SECTION SIGNER
make() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=sam4mllm test $1" -keyout "$1.key" \
        -out "$work/$1.csr"
    by="-cert $3.pem -keyfile $3.key"
    [ "$1" = "$3" ] && by="-selfsign -keyfile $1.key"
    openssl ca -batch -notext -config "$work/ca.cnf" -extensions "$2" -startdate 20200101000000Z \
        -enddate 21200101000000Z $by -in "$work/$1.csr" -out "$1.pem"
}
make root root root
make stranger client stranger
make server server root
make client client root
rm root.key
