package users

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// User is a user as the service shows it. The password's hash is not part of
// it, so no answer, cache entry or log line can hold one.
type User struct {
	ID        int64
	Name      string
	Email     string
	Role      string
	CreatedAt time.Time // UTC, whole microseconds, as PostgreSQL keeps it
	UpdatedAt time.Time // the same
}

// Draft is the part of a user that its writer decides.
type Draft struct {
	Name  string
	Email string
	Role  string

	// PasswordHash is stored as it is. An empty one leaves the stored hash
	// alone in Store.Update and is a bug in Store.Create.
	PasswordHash string

	// Password waits to be hashed; a Store never sees it.
	Password string
}

const (
	maxName     = 100 // characters
	maxEmail    = 254 // bytes, RFC 5321 §4.5.3.1.3
	maxRole     = 32  // bytes
	maxHash     = 255 // bytes
	minPassword = 8   // bytes
	maxPassword = 72  // bytes: bcrypt ignores the rest

	defaultRole = "user"
)

// problem is what is wrong with a field; the zero value means nothing.
type problem struct{ field, detail string }

// check brings d into the form that is stored, or says what is wrong with it.
// Without a password and its hash, d is right only for an update.
func (d *Draft) check(update bool) problem {
	if d.Role == "" {
		d.Role = defaultRole
	}
	d.Email = lower(d.Email)
	switch {
	case !validName(d.Name):
		return problem{"name", "want 1 to 100 characters, none of them a control character, not only spaces"}
	case !validEmail(d.Email):
		return problem{"email", "want an address such as ada@example.com of at most 254 ASCII characters"}
	case !validRole(d.Role):
		return problem{"role", roleWanted}
	case d.Password != "" && d.PasswordHash != "":
		return problem{"password", "want password or password_hash, not both"}
	case d.Password != "" && (len(d.Password) < minPassword || len(d.Password) > maxPassword):
		return problem{"password", "want 8 to 72 bytes"}
	case d.PasswordHash != "" && !validHash(d.PasswordHash):
		return problem{"password_hash", "want 1 to 255 printable ASCII characters without spaces"}
	case d.Password == "" && d.PasswordHash == "" && !update:
		return problem{"password", "want password or password_hash"}
	}
	return problem{}
}

func validName(s string) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxName &&
		strings.TrimSpace(s) != "" && strings.IndexFunc(s, unicode.IsControl) < 0
}

const roleWanted = "want 1 to 32 characters of a-z, 0-9, _ and -, the first a letter"

func validRole(s string) bool {
	if s == "" || len(s) > maxRole || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLowerOrDigit(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// validEmail takes the dot-atom form of RFC 5322 §3.4.1 in lower case with a
// domain of at least two labels. Quoted local parts, comments and address
// literals are legal and nobody's address.
func validEmail(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || len(s) > maxEmail || len(local) > 64 || !strings.Contains(domain, ".") {
		return false
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if c := atom[i]; !isLowerOrDigit(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0 {
				return false
			}
		}
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isLowerOrDigit(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func validHash(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxHash
}

func isLowerOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

// lower maps A to Z only: what else Unicode calls upper case is refused later.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
