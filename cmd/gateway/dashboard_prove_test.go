//go:build prove

package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gateway/internal/browser"
	"gateway/internal/load"
	"gateway/internal/testenv"
)

// TestProveDashboard takes the screenshots of docs/ under a load that comes
// and goes, for SECONDS (default 150):
//
//	make screenshots
func TestProveDashboard(t *testing.T) {
	seconds, _ := strconv.Atoi(os.Getenv("SECONDS"))
	if seconds == 0 {
		seconds = 150
	}
	var servers []any
	for i := range 5 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Duration((1 + rand.ExpFloat64()) * float64(i+1) * float64(time.Millisecond)))
			w.Header().Set("Cache-Control", "max-age=5")
			if r.URL.Path == "/orders/0" && rand.IntN(3) == 0 {
				w.WriteHeader(http.StatusInternalServerError)
			}
			io.WriteString(w, r.URL.Path)
		}))
		defer s.Close()
		servers = append(servers, s.Listener.Addr().String())
	}
	redis := testenv.StartRedis(t)
	s := &shown{child: prepare(t), front: load.FreeAddress(t), back: load.FreeAddress(t)}
	s.write(fmt.Sprintf(`
listen = %q
admin = %q
[upstream.users]
servers = [%q, %q, { address = %q, max_connections = 40 }]
balance = "peak_ewma"
health = { interval = "1s" }
[upstream.orders]
servers = [%q, { address = %q, weight = 2 }, "127.0.0.1:9"]
health = { interval = "1s" }
eject = false
[dependency.sessions]
url = %q
[dependency.ledger]
url = "postgres://127.0.0.1:9/ledger"
[limit.clients]
rate = "40/s"
[limit.logins]
rate = "30/m"
key = "header:X-Client"
[[route]]
name = "login"
path = "/login"
limit = "logins"
respond = { body = "welcome" }
[[route]]
name = "users"
path = "/users/*"
cache = true
upstream = "users"
[[route]]
name = "orders"
path = "/orders/*"
upstream = "orders"
[[route]]
name = "search"
path = "/search"
upstream = "users"
limit = "clients"
[[route]]
name = "home"
path = "/"
respond = { body = "home" }
`, append(append([]any{s.front, s.back}, servers...), redis.URL())...))
	s.run()
	s.line("msg=listening")
	post := func(path string) {
		r, err := http.Post("http://"+s.back+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	began := time.Now()
	enough, done := make(chan struct{}), make(chan struct{}) // the pictures are taken; nobody asks any more
	go func() {
		defer close(done)
		ask := func(path string) {
			if r, err := client.Get("http://" + s.front + path); err == nil {
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		}
		for {
			select {
			case <-enough:
				return
			default:
			}
			at := time.Since(began).Seconds()
			rate := 90 + 50*math.Sin(at/14) + 25*math.Sin(at/5)
			path := []string{"/users/%d", "/users/%d", "/users/%d", "/orders/%d", "/orders/%d", "/search", "/", "/login", "/missing"}[rand.IntN(9)]
			if path[len(path)-1] == 'd' {
				path = fmt.Sprintf(path, int(math.Abs(rand.NormFloat64()*25)))
			}
			go ask(path)
			time.Sleep(time.Duration(float64(time.Second) / rate))
		}
	}()
	time.Sleep(3 * time.Second)
	post("/drain?upstream=users&server=" + servers[1].(string))
	post("/reload")
	time.Sleep(time.Until(began.Add(time.Duration(seconds) * time.Second)))
	page := browser.Start(t).Open("http://" + s.back + "/")
	docs := filepath.Join("..", "..", "docs", "images")
	if err := os.MkdirAll(docs, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, picture := range []struct {
		name string
		browser.View
	}{
		{"dashboard-light", browser.View{Width: 1440, Height: 1080}},
		{"dashboard-dark", browser.View{Width: 1440, Height: 1080, Dark: true}},
		{"dashboard-phone", browser.View{Width: 390, Height: 844, Scale: 1.5, Touch: true, Dark: true}},
	} {
		page.Show(picture.View)
		page.Until("rates are known", `document.querySelectorAll('[data-part="errors"]').length > 3 && Number(document.getElementById("t-rate").dataset.value) > 0`)
		time.Sleep(5 * time.Second) // several looks
		page.Screenshot(filepath.Join(docs, picture.name+".png"), false)
	}
	close(enough)
	<-done
	if c := page.Console(); len(c) > 0 {
		t.Errorf("console: %q", c)
	}
}
