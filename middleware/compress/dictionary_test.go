package compress

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"gateway/internal/mallocs"
)

// available is the Available-Dictionary field of a client that has this body.
func available(body []byte) []byte {
	hash := sha256.Sum256(body)
	return []byte(":" + base64.StdEncoding.EncodeToString(hash[:]) + ":")
}

// referenceWith decodes dcz with the zstd tool, to which its head is a frame
// to be skipped.
func referenceWith(t testing.TB, dictionary, coded []byte) []byte {
	t.Helper()
	hash := sha256.Sum256(dictionary)
	if !bytes.HasPrefix(coded, append([]byte("\x5e\x2a\x4d\x18\x20\x00\x00\x00"), hash[:]...)) {
		t.Fatalf("dcz begins with % x", coded[:min(len(coded), 40)])
	}
	file := filepath.Join(t.TempDir(), "dictionary")
	if err := os.WriteFile(file, dictionary, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("zstd", "-dc", "-D", file)
	cmd.Stdin = bytes.NewReader(coded)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	plain, err := cmd.Output()
	if err != nil {
		t.Fatalf("zstd: %v: %s", err, &failure)
	}
	return plain
}

func TestReferenceToolDecodesWithADictionary(t *testing.T) {
	e := newEngine()
	s := e.Dictionaries("r")
	list := userList(1 << 20)
	for _, size := range []int{1 << 10, 30 << 10, 256 << 10, 1 << 20} {
		dictionary := list[:size]
		d := s.Learn(dictionary)
		for _, level := range []int{1, 3, 6} {
			for _, n := range []int{1, 300, 30 << 10, MaxWhole} {
				body := append(bytes.Clone(list[100:100+n/2]), list[len(list)-n+n/2:]...)
				b := e.EncodeWith(d, level, 0, body)
				if b == nil {
					if n > 1 {
						t.Errorf("%d bytes at level %d did not become smaller", n, level)
					}
					continue
				}
				if got := referenceWith(t, dictionary, b.Bytes()); !bytes.Equal(got, body) {
					t.Errorf("dictionary of %d bytes, %d bytes at level %d: another body of %d bytes", size, n, level, len(got))
				}
				b.Release()
			}
			n := min(900<<10, maxDictionaryWindow-size)
			enc := e.StreamWith(d, level, 0, int64(n), 1)
			body := append(bytes.Clone(list[5000:n]), list[:5000]...)
			var coded []byte
			for rest := body; len(rest) > 0; {
				k := min(len(rest), 50_000)
				coded = append(coded, enc.Encode(rest[:k], More)...)
				rest = rest[k:]
			}
			coded = append(coded, enc.Encode(nil, End)...)
			enc.Release()
			if got := referenceWith(t, dictionary, coded); !bytes.Equal(got, body) {
				t.Errorf("dictionary of %d bytes, stream at level %d: another body of %d bytes", size, level, len(got))
			}
		}
	}
	if e.StreamWith(s.Learn(list), 3, 0, maxDictionaryWindow-int64(len(list))+1, 1) != nil {
		t.Error("a window beyond the limit")
	}
	if e.streams.Load() != 0 {
		t.Errorf("%d streams are left", e.streams.Load())
	}
}

// What a dictionary is for: a page that resembles the one before.
func TestADictionarySavesWhatBodiesHaveInCommon(t *testing.T) {
	e := newEngine()
	list := userList(60 << 10)
	d := e.Dictionaries("r").Learn(list[:30<<10])
	page := list[30<<10:]
	with, without := e.EncodeWith(d, 3, 0, page), e.Encode(NoSpace, Zstd, 3, 0, page)
	if len(with.Bytes()) >= len(without.Bytes()) {
		t.Errorf("%d bytes with a dictionary, %d without", len(with.Bytes()), len(without.Bytes()))
	}
	changed := bytes.Replace(list[:30<<10], []byte("Ada"), []byte("Eve"), 3)
	if b := e.EncodeWith(d, 3, 0, changed); len(b.Bytes()) > 300 {
		t.Errorf("three names that have changed take %d bytes", len(b.Bytes()))
	}
}

func TestDictionariesAreFoundByTheirHash(t *testing.T) {
	s := newEngine().Dictionaries("r")
	body := userList(2000)
	if s.Find(available(body)) != nil {
		t.Error("a dictionary before any was learned")
	}
	d := s.Learn(body)
	if s.Learn(bytes.Clone(body)) != d {
		t.Error("the same body is another dictionary")
	}
	good := string(available(body))
	f := func(field string, want bool) {
		t.Helper()
		if got := s.Find([]byte(field)); (got == d) != want || got != nil && got != d {
			t.Errorf("%q: %v", field, got)
		}
	}
	f(good, true)
	f(" "+good+"\t", true)
	f(good+";a=b", false)
	f(good[:len(good)-1], false)
	f(good[1:], false)
	f("", false)
	f("::", false)
	f(":"+good[2:len(good)-1]+"=:", false)
	f(":!"+good[2:], false)
	f(":////"+good[5:], false)

	for i := range maxDictionaries {
		s.Learn(fmt.Appendf(nil, "dictionary %d", i))
	}
	f(good, false) // the oldest is gone
	if n := len(*s.list.Load()); n != maxDictionaries {
		t.Errorf("%d dictionaries are kept", n)
	}
}

func TestRoutesShareNoDictionaries(t *testing.T) {
	e := newEngine()
	body := userList(2000)
	d := e.Dictionaries("a").Learn(body)
	if e.Dictionaries("b").Find(available(body)) != nil {
		t.Error("a route knows the dictionary of another")
	}
	if e.Dictionaries("a").Find(available(body)) != d {
		t.Error("a reload forgets dictionaries")
	}
	for i := range maxRoutes + 1 {
		e.Dictionaries(fmt.Sprint(i))
	}
	if n := len(e.dictionaries); n > maxRoutes {
		t.Errorf("%d routes", n)
	}
}

func TestOneDictionaryIsElected(t *testing.T) {
	s := newEngine().Dictionaries("r")
	f := func(target, body string, seconds int64, want bool) {
		t.Helper()
		if got := s.Elect([]byte(target), []byte(body), seconds*1e9); got != want {
			t.Errorf("%s is %q after %d s: %v", target, body, seconds, got)
		}
	}
	f("/a", "one", 0, true)
	f("/a", "one", 1, true)
	f("/b", "one", 1, false)
	f("/b", "two", 2, false)
	f("/a", "two", 59, false) // not with every answer
	f("/a", "one", 59, true)
	f("/a", "two", 61, true)
	f("/a", "one", 62, false)
	f("/b", "one", 3000, false)
	f("/b", "one", 3662, true) // nobody may have asked for /a any more
	f("/a", "two", 3663, false)
	for _, body := range []string{"one", "two"} {
		if s.Find(available([]byte(body))) == nil {
			t.Errorf("%q is forgotten though clients have it", body)
		}
	}
}

func TestWhatTheOriginMarksIsADictionary(t *testing.T) {
	f := func(field string, want bool) {
		t.Helper()
		if got := IsDictionary([]byte(field)); got != want {
			t.Errorf("%s: %v", field, got)
		}
	}
	f(`match="/app/*"`, true)
	f(`match="/app/*", id="a,b", type=raw`, true)
	f(`id="match=\"", match-dest=("script" "style"), match="/a"`, true)
	f(`type=raw;a=b, match="/a"`, true)
	f(`match="/a",type=other`, false)
	f(`match=/a`, false)
	f(`match=""`, false)
	f(`match`, false)
	f(`id="match=x"`, false)
	f(`type=raw`, false)
	f(`match="/a`, false)
	f(``, false)
}

func TestAnnouncementsMatchTheRoute(t *testing.T) {
	f := func(want string, patterns ...string) {
		t.Helper()
		if got := Announcement(patterns); got != `match="`+want+`"` {
			t.Errorf("%q: %s, want %s", patterns, got, want)
		}
	}
	f("/*")
	f("/*", "/*")
	f("/*", "*")
	f("/*", "/")
	f("/users*", "/users/*")
	f("/users*", "/users")
	f("/users*", "/users/{id}/posts")
	f("/users*", "/users/*", "/users")
	f("/a*", "/app/*", "/assets/*")
	f("/*", "/app/*", "/users/*")
	f(`/a\\:b\\(*`, "/a:b(")
}

func TestDictionariesAllocateNothing(t *testing.T) {
	e := newEngine()
	s := e.Dictionaries("r")
	list := userList(60 << 10)
	s.Learn(list[:30<<10])
	field, page, target := available(list[:30<<10]), list[30<<10:], []byte("/users")
	f := func() {
		s.Elect(target, list[:30<<10], 0)
		e.EncodeWith(s.Find(field), 3, 0, page).Release()
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	mallocs.None(t, "a dictionary", 2000, f)
}

func TestDictionariesAreSafeForConcurrentUse(t *testing.T) {
	e := newEngine()
	list := userList(40 << 10)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			s := e.Dictionaries("r")
			for j := range 20 {
				d := s.Learn(list[j<<10 : (j+4)<<10])
				s.Elect(fmt.Append(nil, i), list[j<<10:(j+4)<<10], int64(j)*100e9)
				s.Find(available(d.body))
				e.EncodeWith(d, 1, 0, list[:20<<10]).Release()
			}
		})
	}
	all.Wait()
}
