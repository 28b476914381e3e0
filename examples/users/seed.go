package users

import (
	"strconv"
	"time"
)

// maxSeed keeps the seeded creation times in the past: 30 s apart, the last of
// a million is from December 2020.
const maxSeed = 1_000_000

var seedEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

var (
	seedFirst = []string{"Ada", "Alan", "Barbara", "Dennis", "Edsger", "Frances", "Grace", "Hedy",
		"Ivan", "Jean", "Ken", "Leslie", "Margaret", "Niklaus", "Radia", "Søren"}
	seedLast = []string{"Allen", "Bartik", "Dijkstra", "Hamilton", "Hopper", "Lamarr", "Lamport", "Liskov",
		"Lovelace", "Perlman", "Ritchie", "Sutherland", "Thompson", "Turing", "Wirth"}
)

// seedUser is the user i (from 0) of the deterministic sequence and its
// creation time. One in a hundred is an admin, one in ten an editor. Its hash
// matches no password.
func seedUser(i int) (Draft, time.Time) {
	role := defaultRole
	switch {
	case i%100 == 0:
		role = "admin"
	case i%10 == 0:
		role = "editor"
	}
	return Draft{
		Name:         seedFirst[i%len(seedFirst)] + " " + seedLast[i%len(seedLast)],
		Email:        "user" + strconv.Itoa(i+1) + "@example.com",
		Role:         role,
		PasswordHash: "!",
	}, seedEpoch.Add(time.Duration(i) * 30 * time.Second)
}
