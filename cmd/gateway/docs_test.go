package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gateway/exchange"
)

// guides are the documents whose every name is checked.
var guides = []string{"operations.md", "migration-from-nginx.md"}

// guide reads a document.
func guide(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fences are the blocks of code of a document.
var fences = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// blocks are those in a language.
func blocks(text, language string) (found []string) {
	for _, m := range fences.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// vocabulary is what documents may name.
type vocabulary struct {
	options map[string]bool // as "limit.rate": the names of tables are left out
	words   map[string]bool // last parts of options, values, reasons, and what others call so
	reasons map[string]int  // with their statuses
	metrics map[string]bool
	scrape  string
	alerts  string
	admin   map[string]bool // as "GET /metrics"
	help    map[string]string
}

func newVocabulary(t *testing.T) *vocabulary {
	t.Helper()
	v := &vocabulary{
		options: map[string]bool{}, reasons: map[string]int{}, admin: map[string]bool{}, help: map[string]string{},
		// Fields of the access log and of problem documents, and an option of Redis.
		words: map[string]bool{"reason": true, "request_id": true, "maxmemory": true},
	}
	var schema map[string]any
	if err := json.Unmarshal([]byte(command(t, "schema").stdout), &schema); err != nil {
		t.Fatal(err)
	}
	v.learn(schema, "")
	x := exchange.Acquire()
	defer exchange.Release(x)
	for r := exchange.BadRequest; r < exchange.ReasonCount; r++ {
		x.FailWith(r, 0, "")
		v.words[r.String()] = true
		if x.Fail(r); r == exchange.BadRequest {
			x.Response.Status = 400 // 431, 414 and others by what is wrong with it
		}
		v.reasons[r.String()] = x.Response.Status
	}
	c := everything(t)
	_, v.scrape = c.ask("GET", "/metrics")
	v.metrics = metricNames(t, v.scrape)
	_, index := c.ask("GET", "/")
	for _, m := range regexp.MustCompile(`(?m)^(GET|POST) +(/\w+)`).FindAllStringSubmatch(index, -1) {
		v.admin[m[1]+" "+m[2]] = true
	}
	rules, err := os.ReadFile("../../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	v.alerts = string(rules)
	for _, m := range regexp.MustCompile(`(?m)^  (\w+) `).FindAllStringSubmatch(command(t, "help").stdout, -1) {
		v.help[m[1]] = command(t, m[1], "--help").stdout
	}
	if len(v.options) < 150 || len(v.reasons) < 20 || len(v.admin) < 8 || len(v.help) < 6 {
		t.Fatalf("%d options, %d reasons, %d requests to admin, %d commands", len(v.options), len(v.reasons), len(v.admin), len(v.help))
	}
	return v
}

// learn walks a schema.
func (v *vocabulary) learn(node any, path string) {
	n, ok := node.(map[string]any)
	if !ok {
		return
	}
	for key, child := range asMap(n["properties"]) {
		at := strings.TrimPrefix(path+"."+key, ".")
		v.options[at], v.words[key] = true, true
		v.learn(child, at)
	}
	if list, ok := n["anyOf"].([]any); ok {
		for _, child := range list {
			v.learn(child, path)
		}
	}
	if values, ok := n["enum"].([]any); ok {
		for _, value := range values {
			v.words[fmt.Sprint(value)] = true
		}
	}
	v.learn(n["items"], path)
	v.learn(n["additionalProperties"], path)
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

var (
	namedMetric = regexp.MustCompile(`\b(?:gateway|process|go)_[a-z_]+\b`)
	namedSeries = regexp.MustCompile(`\b((?:gateway|process|go)_[a-z_]+)\{(\w+="\w+")\}`)
	namedAlert  = regexp.MustCompile(`\bGateway[A-Z]\w+`)
	namedReason = regexp.MustCompile("(\\d{3}) `([a-z_]+)`")
	namedLink   = regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	heading     = regexp.MustCompile(`(?m)^#+ (.*)$`)
	span        = regexp.MustCompile("`([^`\n]+)`")
	console     = regexp.MustCompile(`(?m)^\$ (.*)$`)
	assigned    = regexp.MustCompile(`([a-z_.]+) = `)
	table       = regexp.MustCompile(`^\[+([a-z_]+)(?:\.\w+)?\]+$`)
	dotted      = regexp.MustCompile(`^[a-z_]+(\.[a-z_]+)+$`)
	single      = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// unknown says what is wrong with a name in backquotes, "" for nothing.
func (v *vocabulary) unknown(name string, foreign map[string]bool) string {
	words := strings.Fields(name)
	request := strings.FieldsFunc(name, func(r rune) bool { return r == '?' || r == '…' })
	switch {
	case words[0] == "gateway" && len(words) > 1:
		help, ok := v.help[words[1]]
		if !ok {
			return "no such command"
		}
		for _, flag := range words[2:] {
			if strings.HasPrefix(flag, "--") && !strings.Contains(help, flag+" ") {
				return "no such flag " + flag
			}
		}
	case strings.HasPrefix(name, "--"):
		for _, help := range v.help {
			if strings.Contains(help, words[0]+" ") {
				return ""
			}
		}
		return "no such flag"
	case words[0] == "GET" || words[0] == "POST":
		if !v.admin[request[0]] {
			return "no such request to the admin address"
		}
	case strings.HasPrefix(name, "deploy/"):
		if _, err := os.Stat("../../" + name); err != nil {
			return err.Error()
		}
	case assigned.MatchString(name):
		for _, m := range assigned.FindAllStringSubmatch(name, -1) {
			if !v.options[m[1]] && !(single.MatchString(m[1]) && v.words[m[1]]) {
				return "no such option " + m[1]
			}
		}
	case table.MatchString(name):
		if !v.options[table.FindStringSubmatch(name)[1]] {
			return "no such table"
		}
	case strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs."):
	case dotted.MatchString(name):
		if !v.options[name] {
			return "no such option"
		}
	case single.MatchString(name) && !namedMetric.MatchString(name):
		if !v.words[name] && !foreign[name] {
			return "neither an option, nor a value of one, nor a reason"
		}
	}
	return ""
}

func TestGuidesNameWhatExists(t *testing.T) {
	v := newVocabulary(t)
	for _, file := range guides {
		text := guide(t, file)
		foreign := map[string]bool{}
		if file == "migration-from-nginx.md" {
			foreign = directives(text)
		}
		wrong := func(what, name, why string) { t.Errorf("docs/%s: %s %q: %s", file, what, name, why) }
		count := 0
		for _, name := range namedMetric.FindAllString(text, -1) {
			if count++; !v.metrics[name] {
				wrong("metric", name, "does not exist")
			}
		}
		for _, m := range namedSeries.FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `\{.*` + m[2]).MatchString(v.scrape) {
				wrong("series", m[0], "does not exist")
			}
		}
		for _, name := range namedAlert.FindAllString(text, -1) {
			if count++; !strings.Contains(v.alerts, "- alert: "+name+"\n") {
				wrong("alert", name, "is not in rules.yml")
			}
		}
		for _, m := range namedReason.FindAllStringSubmatch(text, -1) {
			if count++; strconv.Itoa(v.reasons[m[2]]) != m[1] {
				wrong("status", m[0], fmt.Sprintf("the reason has %d", v.reasons[m[2]]))
			}
		}
		for _, m := range namedLink.FindAllStringSubmatch(text, -1) {
			if count++; !v.leads(t, file, m[1], strings.TrimPrefix(m[2], "#")) {
				wrong("link", m[0], "leads nowhere")
			}
		}
		for _, block := range blocks(text, "console") {
			for _, m := range console.FindAllStringSubmatch(block, -1) {
				if why := v.unknown(m[1], foreign); why != "" {
					wrong("command", m[1], why)
				}
			}
		}
		prose := fences.ReplaceAllString(text, "")
		if file == "migration-from-nginx.md" {
			prose = firstCell.ReplaceAllString(prose, "|") // nginx's
		}
		for _, m := range span.FindAllStringSubmatch(prose, -1) {
			if count++; strings.TrimSpace(m[1]) == "" {
				wrong("name", m[0], "is empty")
			} else if why := v.unknown(m[1], foreign); why != "" {
				wrong("name", m[1], why)
			}
		}
		if count < 100 {
			t.Errorf("docs/%s: %d names were found", file, count)
		}
	}
}

// leads reports whether a link leads somewhere.
func (v *vocabulary) leads(t *testing.T, from, file, anchor string) bool {
	if file == "" {
		file = from
	}
	text, err := os.ReadFile(filepath.Join("../../docs", file))
	if err != nil || anchor == "" {
		return err == nil
	}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		slug := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(slug, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// firstCell is that of a table's row.
var firstCell = regexp.MustCompile(`(?m)^\|[^|]*\|`)

// directives are the words of nginx that the migration page names: in the first
// columns, in nginx's configuration, and as what has no equivalent.
func directives(text string) map[string]bool {
	_, missing, _ := strings.Cut(text, "\n## What there is no equivalent for\n")
	missing, _, _ = strings.Cut(missing, "\n## ")
	theirs := strings.Join(append(firstCell.FindAllString(text, -1), append(blocks(text, "nginx"), missing)...), " ")
	words := map[string]bool{}
	for _, word := range regexp.MustCompile(`[a-z][a-z0-9_]*`).FindAllString(theirs, -1) {
		words[word] = true
	}
	return words
}

func TestGuidesShowValidConfigurations(t *testing.T) {
	for _, file := range guides {
		found := blocks(guide(t, file), "toml")
		if len(found) == 0 {
			t.Errorf("docs/%s shows none", file)
		}
		for i, text := range found {
			path := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if r := command(t, "check", "--config", path); r.status != 0 || r.stderr != "" {
				t.Errorf("docs/%s, configuration %d: %s%s", file, i+1, r.stdout, r.stderr)
			}
		}
	}
}

// TestTranslationDoesWhatItSays runs what the migration page makes of nginx's
// configuration, with addresses of this machine in it.
func TestTranslationDoesWhatItSays(t *testing.T) {
	k := newKitchen(t)
	dir := t.TempDir()
	writeCertificate(t, filepath.Join(dir, "shop.pem"), filepath.Join(dir, "shop.key"))
	text := blocks(guide(t, "migration-from-nginx.md"), "toml")[0]
	for _, replace := range [][2]string{
		{`[":80", "https://:443"]`, `["${HTTP}", "https://${HTTPS}"]`},
		{"/etc/gateway", dir},
		{"shop.example.com", "site.example"},
		{"10.0.0.1:3000", "${APP}"}, {"10.0.0.2:3000", "${APP2}"}, {"10.0.0.9:3000", "127.0.0.1:1"},
		{"10.0.1.1:4000", "${APP}"}, {"10.0.1.2:4000", "${APP2}"},
		{`"10/s"`, `"10/m"`}, // requests may be slow here
	} {
		if !strings.Contains(text, replace[0]) {
			t.Fatalf("%q is not in the configuration", replace[0])
		}
		text = strings.ReplaceAll(text, replace[0], replace[1])
	}
	k.recipes = []string{text}
	d := k.cook(1)
	secure := "https://" + d.secure

	if to := d.send("GET", "/a?b").expect(t, "plain", 301).Header.Get("Location"); to != "https://site.example/a?b" {
		t.Errorf("moved to %q", to)
	}
	r := d.send("GET", secure+"/ping").expect(t, "an answer of its own", 200)
	if r.body != "pong\n" || r.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%v %q", r.Header, r.body)
	}
	d.send("GET", secure+"/api/admin/x").expect(t, "from elsewhere", 403)
	before := k.asked.Load()
	for range 3 {
		d.send("GET", secure+"/page").expect(t, "a page", 200)
	}
	if n := k.asked.Load() - before; n != 1 {
		t.Errorf("%d requests for a page reach the origin", n)
	}
	k.status.Store(503)
	for range 4 {
		d.send("GET", secure+"/api/x").expect(t, "beside a server that fails", 200)
	}
	for range 17 {
		d.send("GET", secure+"/api/x").expect(t, "within the burst", 200)
	}
	d.until("the limit refuses", func() bool { return d.send("GET", secure+"/api/x").StatusCode == 429 })
}
