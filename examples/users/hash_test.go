package users

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func TestPasswordsAreHashedInTheirRows(t *testing.T) {
	h := newHasher(2, bcrypt.MinCost)
	defer h.close()
	drafts := []Draft{{Password: "password 0"}, {PasswordHash: "given"}, {Password: "password 2"}, {Password: "password 3"}}
	if err := h.hash(t.Context(), drafts); err != nil {
		t.Fatal(err)
	}
	for i, password := range []string{"password 0", "", "password 2", "password 3"} {
		d := drafts[i]
		if password == "" {
			if d.PasswordHash != "given" {
				t.Errorf("row %d: %+v", i, d)
			}
			continue
		}
		if err := bcrypt.CompareHashAndPassword([]byte(d.PasswordHash), []byte(password)); err != nil || d.Password != "" {
			t.Errorf("row %d: %+v: %v", i, d, err)
		}
	}
}

func TestHashingIsBounded(t *testing.T) {
	h := newHasher(1, bcrypt.DefaultCost) // 50 ms each
	defer h.close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := h.hash(ctx, []Draft{{Password: "a"}, {Password: "b"}, {Password: "c"}}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("deadline: %v; want ErrUnavailable", err)
	}
	many := make([]Draft, maxHashing+1)
	for i := range many {
		many[i].Password = "x"
	}
	if err := h.hash(t.Context(), many); !errors.Is(err, ErrUnavailable) {
		t.Errorf("too many: %v; want ErrUnavailable", err)
	}
	if n := h.waiting.Load(); n != 0 {
		t.Errorf("%d passwords still count as waiting", n)
	}
}
