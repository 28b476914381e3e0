// What changes something is asked for first, in a dialog, and its result is
// told there when it failed.
import { $, make, text } from "./dom.js";

// ask opens the dialog. act is given the fields' values and returns words for
// the toast; when it throws, the dialog stays and says why.
export function ask({ title, body, ok, danger = false, fields = [], act }) {
  const dialog = $("dialog"), form = dialog.querySelector("form"), result = $("d-result");
  text($("d-title"), title);
  text($("d-text"), body);
  text($("d-ok"), ok).classList.toggle("danger", danger);
  result.hidden = true;
  $("d-fields").replaceChildren(...fields.map(field));
  $("d-cancel").onclick = () => dialog.close();
  $("d-ok").disabled = false;
  form.onsubmit = async event => {
    event.preventDefault();
    const values = Object.fromEntries([...form.querySelectorAll("[name]")].map(e => [e.name, e.value.trim()]));
    $("d-ok").disabled = true;
    try {
      const words = await act(values);
      dialog.close();
      toast(words);
    } catch (error) {
      result.hidden = false;
      text(result, error.message);
    } finally {
      $("d-ok").disabled = false;
    }
  };
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector("[name]") ?? $("d-ok")).focus();
}

function field({ name, label, options, ...attributes }) {
  let input;
  if (options) {
    input = make("select", "", { name }, ...options.map(([value, words]) => make("option", "", { value }, words)));
  } else {
    input = make("input", "", { name, autocomplete: "off", spellcheck: "false", ...attributes });
  }
  return make("label", "", {}, label, input);
}

let timer;

export function toast(words) {
  const element = text($("toast"), words);
  element.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => element.classList.remove("shown"), 5000);
}
