// Package adapter is what the Go adapters share: the loop that reads one request a line and answers each with one line (see ../../README.md).
package adapter

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Codecs in the order in which they are tried.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Unsupported is what the client has no function for.
type Unsupported string

func (u Unsupported) Error() string { return string(u) }

// Bytes travel as hex, nil as null.
type Bytes []byte

func (b Bytes) MarshalJSON() ([]byte, error) {
	if b == nil {
		return []byte("null"), nil
	}
	return json.Marshal(hex.EncodeToString(b))
}

func (b *Bytes) UnmarshalJSON(text []byte) error {
	var digits *string
	if err := json.Unmarshal(text, &digits); err != nil || digits == nil {
		return err
	}
	decoded, err := hex.DecodeString(*digits)
	*b = decoded
	return err
}

// Header is a pair on the wire.
type Header struct {
	Name  string
	Value Bytes
}

func (h Header) MarshalJSON() ([]byte, error) { return json.Marshal([]any{h.Name, h.Value}) }

func (h *Header) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&h.Name, &h.Value})
}

// Record is to be produced.
type Record struct {
	Partition *int32
	Key       Bytes
	Value     Bytes
	Headers   []Header
	Timestamp *int64
}

// Request has the fields of all requests.
type Request struct {
	Op, Topic, Codec, Acks, Group, Strategy, Prefix string
	TransactionalID                                 string `json:"transactional_id"`
	Idempotent                                      bool
	Instance                                        *string
	SessionMs                                       int `json:"session_ms"`
	Records                                         []Record
	Partitions                                      json.RawMessage
	Partition                                       int32
	Start, At                                       any
	Ms, Before                                      int64
	Count                                           int
	Configs                                         map[string]string
	Topics                                          []string
}

// PartitionList is the field `partitions` where it lists them.
func (r Request) PartitionList() []int32 {
	var list []int32
	json.Unmarshal(r.Partitions, &list)
	return list
}

// PartitionCount is the field `partitions` where it counts them.
func (r Request) PartitionCount() int {
	var count int
	json.Unmarshal(r.Partitions, &count)
	return count
}

// Place is where to start: -2 for the start, -1 for the end, a time otherwise.
func Place(start any) int64 {
	switch at := start.(type) {
	case float64:
		return int64(at)
	case string:
		if at == "start" {
			return -2
		}
	}
	return -1
}

// Got is a consumed record on the wire.
func Got(partition int32, offset, timestamp int64, key, value []byte, headers []Header) []any {
	if headers == nil {
		headers = []Header{}
	}
	return []any{partition, offset, timestamp, Bytes(key), Bytes(value), headers}
}

// Answer of a request.
type Answer = map[string]any

// Ops by name.
type Ops = map[string]func(Request) (Answer, error)

// Serve answers requests until there are no more. code finds Kafka's number in an error, 0 for none.
func Serve(ops Ops, code func(error) int) {
	requests := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := requests.ReadBytes('\n')
		if err != nil {
			return
		}
		answers.Encode(answer(ops, line, code))
	}
}

func answer(ops Ops, line []byte, code func(error) int) Answer {
	var request Request
	if err := json.Unmarshal(line, &request); err != nil {
		return Answer{"error": err.Error(), "code": nil}
	}
	op, has := ops[request.Op]
	if !has {
		return Answer{"unsupported": "no " + request.Op}
	}
	ok, err := op(request)
	var unsupported Unsupported
	if errors.As(err, &unsupported) {
		return Answer{"unsupported": err.Error()}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, request.Op, err)
		if number := code(err); number != 0 {
			return Answer{"error": err.Error(), "code": number}
		}
		return Answer{"error": err.Error(), "code": nil}
	}
	if ok == nil {
		ok = Answer{}
	}
	return Answer{"ok": ok}
}
