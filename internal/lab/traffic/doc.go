// Package traffic holds the generators and probes of the laboratory: flood,
// probe, echo and tcp. Each runs in the network namespace of its process,
// is bounded in time (and the flood in count), stops by itself, and returns what it
// measured as a value that marshals to JSON.
package traffic
