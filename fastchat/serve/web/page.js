() => {
    const theme = localStorage.getItem("fastchat-theme");
    if (theme) document.body.classList.toggle("dark", theme === "dark");
    if (window.innerWidth < 768) {
        // On a phone the sidebar covers the page: it starts closed.
        document.querySelector("#sidebar.open .toggle-button, .sidebar.open .toggle-button")?.click();
    }
}
