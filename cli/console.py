def banner(*a, **k): print("started")
def show_problems(e): print(e)
