#!/bin/sh
# Starts a broker on loopback, lets every client write, collects the segments, stops the broker.
#
#   generate.sh KAFKA_LIB PYTHON WORK_DIR
#
# KAFKA_LIB: directory with the jars of kafka_2.13, kafka-tools and log4j-slf4j-impl. PYTHON: an interpreter with
# kafka-python, confluent-kafka, python-snappy, lz4 and zstandard. WORK_DIR: scratch, must not exist. Go is taken from the PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
lib=$1 python=$2 work=$3
address=127.0.0.1:19192
mkdir "$work"
cd "$work"
id=$(java -cp "$lib/*" kafka.tools.StorageTool random-uuid 2>/dev/null)
java -cp "$lib/*" kafka.tools.StorageTool format --standalone -t "$id" -c "$here/server.properties" >format.log 2>&1
java -Xmx512m -cp "$lib/*" kafka.Kafka "$here/server.properties" >broker.log 2>&1 &
broker=$!
trap 'kill $broker' EXIT
until java -cp "$lib/*" org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server $address >/dev/null 2>&1; do sleep 1; done
"$python" "$here/produce_kafka_python.py" $address "$here/records.json"
"$python" "$here/produce_confluent.py" $address "$here/records.json"
(cd "$here/go" && go run . $address "$here/records.json")
java -cp "$lib/*" "$here/Produce.java" produce $address "$here/records.json" 2>java.log
java -cp "$lib/*" "$here/Produce.java" dump $address >dump.jsonl 2>>java.log
"$python" "$here/collect.py" data dump.jsonl "$here/.."
