() => {
    const theme = localStorage.getItem("fastchat-theme");
    if (theme) document.body.classList.toggle("dark", theme === "dark");
}
