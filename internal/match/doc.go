// Package match decides which rule a request belongs to: patterns for hosts
// and paths, conditions on method, fields and query, and an index over many
// rules in which the first match in file order wins.
//
// It knows neither the configuration nor the gateway, so that both the check
// of a configuration and the data plane read patterns in exactly one way.
package match
