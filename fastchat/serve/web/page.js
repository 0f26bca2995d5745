() => {
    const theme = localStorage.getItem("fastchat-theme");
    if (theme) document.body.classList.toggle("dark", theme === "dark");
    if (window.innerWidth < 768) {
        // On a phone the sidebar covers the page: it starts closed.
        document.querySelector("#sidebar.open .toggle-button, .sidebar.open .toggle-button")?.click();
    }
    // What is copied or edited is what was written, not the spelling in which it is shown.
    const written = (text) =>
        text.replaceAll("&#000060;", "<").replaceAll("$\u2060", () => "$").replaceAll("\u2060$", () => "$");
    if (navigator.clipboard) {
        const write = navigator.clipboard.writeText.bind(navigator.clipboard);
        navigator.clipboard.writeText = (text) => write(written(text));
    }
    // Pages that do not come over HTTPS have no such clipboard, and neither has a selection.
    document.addEventListener("copy", (event) => {
        const from = event.target;
        const text = from.tagName === "TEXTAREA" ? from.value : String(window.getSelection());
        if (written(text) === text) return;
        event.clipboardData.setData("text/plain", written(text));
        event.preventDefault();
    });
    document.addEventListener("focusin", ({target}) => {
        if (target.tagName !== "TEXTAREA" || written(target.value) === target.value) return;
        target.value = written(target.value);
        target.dispatchEvent(new Event("input", {bubbles: true}));
    });
}
